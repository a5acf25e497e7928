"""All charts of a report."""

from __future__ import annotations

from altair.utils.schemapi import debug_mode

from fcnlab.report.charts.cells import draw_cost, draw_differences, draw_seeds
from fcnlab.report.charts.classes import draw_classes
from fcnlab.report.charts.curves import draw_curves
from fcnlab.report.charts.plot import Plot
from fcnlab.report.charts.style import CellStyles
from fcnlab.report.footnotes.differences import name_baselines
from fcnlab.report.report import Report
from fcnlab.report.tables.names import quote_name

NAMES = ("seeds", "differences", "cost", "curves", "loss", "classes")
"""Names of all charts, of which a report has those with data."""


def draw_plots(report: Report) -> list[Plot]:
    """Draw all charts of a report that have data.

    Args:
        report: report of a grid.
    """
    cells, significance, records = report.cells, report.significance, report.records
    scored = cells[(cells["n"] > 0) & cells["miou"].notna()].reset_index(drop=True)
    if scored.empty:
        return []
    grid, groups = report.grid, report.groups
    styles = CellStyles.create(scored, ", ".join(report.names.headings), grid.baseline.label, grid.display_name)
    comparisons = significance.comparisons
    on_same_images = {cell: one for cell, one in comparisons.items() if cell in groups[0].same}
    with debug_mode(False):  # a test validates the charts; here the validation would take most of the time
        candidates = [
            draw_seeds(scored, report.trials, styles),
            draw_differences(scored, significance, styles, name_baselines(grid, groups)) if comparisons else None,
            draw_cost(scored, styles, groups) if len(scored) > 1 else None,
            *draw_curves(scored, records, styles),
            draw_classes(
                scored, report.class_names, on_same_images, styles, quote_name(grid.display_name(groups[0].baseline))
            )
            if on_same_images
            else None,
        ]
    return [plot for plot in candidates if plot is not None]
