"""The HTML page of a report: one self-contained file that works without a network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from fcnlab.data.datasets.palette import find_palette
from fcnlab.report.footnotes.data import describe_other_images
from fcnlab.report.gallery.selection import Gallery
from fcnlab.report.html.environment import read_assets, render
from fcnlab.report.html.gallery import BUDGET, make_columns_style, make_gallery, name_colors
from fcnlab.report.html.key_results import make_key_results
from fcnlab.report.html.security import load_vega, make_policy, to_data_uri, to_json
from fcnlab.report.html.sortable import make_sortable_cells, make_sortable_classes
from fcnlab.report.html.trials import HEADINGS, TEXTS, group_failures, make_trial_rows
from fcnlab.report.provenance import describe_dates, describe_provenance, rerun_command
from fcnlab.report.report import Report
from fcnlab.report.tables.effects import describe_effects, make_effects_table
from fcnlab.report.tables.formats import to_html

if TYPE_CHECKING:  # importing it would import altair
    from fcnlab.report.charts.plot import Plot

WIDE = frozenset({"classes"})
"""Charts that take the full width of the page."""

SCRIPTS = ("theme.js", "tables.js", "charts.js", "lightbox.js", "print.js")
STYLES = ("page.css", "tables.css", "gallery.css", "print.css")

MEDIA_TYPES = {"csv": "text/csv", "tex": "application/x-tex"}


@dataclass(frozen=True)
class Section:
    """A grid on a page.

    Attributes:
        report: report of the grid.
        plots: charts of the report.
        gallery: images of the gallery; None where there are none.
        files: contents of the files that the page offers for download, by name.
    """

    report: Report
    plots: Sequence[Plot]
    gallery: Gallery | None
    files: dict[str, str]


def render_page(sections: Sequence[Section], title: str) -> str:
    """Return the HTML of a page with one section per grid.

    Args:
        sections: the grids; several of them get a navigation bar.
        title: title of the page.
    """
    contexts = [_make_context(section, BUDGET // len(sections)) for section in sections]
    galleries = [context["gallery"] for context in contexts if context["gallery"] is not None]
    style = read_assets(*STYLES) + Markup("".join(sorted({make_columns_style(gallery) for gallery in galleries})))
    scripts = [Markup(load_vega())] if any(section.plots for section in sections) else []
    scripts.append(read_assets(*SCRIPTS))
    return render(
        "page.html.j2",
        title=title,
        sections=contexts,
        style=style,
        scripts=scripts,
        policy=make_policy([style], scripts),
    )


def _make_context(section: Section, budget: int) -> dict[str, Any]:
    """Return the variables of a section's template."""
    report, gallery = section.report, section.gallery
    grid, classes = report.grid, report.classes
    reference = next((cell for cell in grid.cells if cell.label == report.groups[0].reference), grid.baseline)
    palette = find_palette(reference.dataset, classes)
    return {
        "name": grid.name,
        "question": grid.file.question,
        "description": grid.file.description,
        "conclusion": grid.file.conclusion,
        "key_results": make_key_results(report),
        "failures": group_failures(report),
        "summary": report.summary_text,
        "cells": make_sortable_cells(report),
        "footnotes": report.footnotes,
        "effects": _make_effects(report),
        "downloads": [
            (name, to_data_uri(text.encode(), MEDIA_TYPES[name.rpartition(".")[2]]))
            for name, text in section.files.items()
        ],
        "plots": [_make_plot_context(plot) for plot in section.plots],
        "classes": make_sortable_classes(report, name_colors(palette, len(classes))),
        "other_images": describe_other_images(report),
        "gallery": None if gallery is None else make_gallery(gallery, report.class_names, palette, budget),
        "trials": make_trial_rows(report),
        "trial_headings": [(heading, heading not in TEXTS) for heading in HEADINGS],
        "command": rerun_command(grid),
        "provenance": [*describe_dates(report.records), *describe_provenance(grid, report.trials)],
    }


def _make_effects(report: Report) -> dict[str, Any] | None:
    effects = report.axis_effects
    if not effects:
        return None
    return {"table": Markup(to_html(make_effects_table(effects, report.names))), "notes": describe_effects(effects)}


def _make_plot_context(plot: Plot) -> dict[str, Any]:
    return {
        "name": plot.name,
        "title": plot.title,
        "caption": plot.caption,
        "wide": plot.name in WIDE,
        "min_width": plot.min_width,
        "spec": to_json(plot.page_spec),
        "image": to_data_uri(plot.to_svg(), "image/svg+xml"),
    }
