"""Footnotes of the table of a grid, and the short notes below a table in a paper."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from fcnlab.analysis import MIN_SEEDS
from fcnlab.report.best import CONTRADICTION
from fcnlab.report.footnotes.costs import describe_costs
from fcnlab.report.footnotes.data import describe_folds, describe_missing_images, describe_repeated_images
from fcnlab.report.footnotes.differences import (
    DELTAS,
    TESTED,
    describe_differences,
    describe_missing_counts,
    describe_pivot_markers,
    describe_shared_seeds,
    name_baselines,
)
from fcnlab.report.footnotes.image_metrics import describe_image_metrics, describe_missing_image_metrics
from fcnlab.report.footnotes.metrics import (
    describe_checkpoints,
    describe_class_columns,
    describe_evaluation,
    describe_means,
    list_metrics,
)
from fcnlab.report.footnotes.names import distinct_texts
from fcnlab.report.footnotes.trials import (
    describe_damaged_trials,
    describe_flags,
    describe_plateaus,
    describe_pruned_cells,
    describe_spread,
    describe_untrained_cells,
)
from fcnlab.report.tables.columns import FLAGGED, NO_CLAIM, SIGNIFICANT, is_per_image
from fcnlab.report.tables.table import Table

if TYPE_CHECKING:
    from fcnlab.report.report import Report


def write_footnotes(report: Report, columns: Collection[str], pivoted: Table | None = None) -> list[str]:
    """Return the footnotes of a grid's table that concern the shown columns, one text per line.

    Args:
        report: report of the grid.
        columns: names of the shown columns.
        pivoted: the table if it is pivoted; its values have markers of differences, which it does not show.
    """
    grid, trials, records, significance = report.grid, report.trials, report.records, report.significance
    finished = trials[trials["status"] == "finished"]
    miou = any(name.startswith("miou") or name in TESTED for name in columns)
    metrics = list_metrics(columns, report.names)
    per_image = any(map(is_per_image, columns))
    unchanged = [grid.file.labels.describe_unchanged(grid.unchanged) + "."] if grid.unchanged is not None else []
    left_out = [*describe_pruned_cells(trials), *describe_damaged_trials(trials)]
    if finished.empty:
        return [*unchanged, "No trial has finished yet.", *left_out]
    evaluated = metrics or ["mIoU"] * miou
    lines = [
        *unchanged,
        *(describe_evaluation(grid, finished, records, evaluated) if evaluated or per_image else ()),
        *describe_class_columns(report.names, columns, pivoted),
        *describe_image_metrics(report, columns),
        *describe_missing_image_metrics(report, columns),
        *describe_means(report, columns, miou=miou),
        *describe_repeated_images(grid, report.repeated),
        *describe_missing_images(report.not_compared),
        *describe_folds(grid, report.groups, finished),
        *(describe_spread(grid, trials) if metrics or per_image or DELTAS & set(columns) else ()),
        *(describe_checkpoints(grid, report.cells, finished) if miou else ()),
        *(describe_differences(report, finished, columns) if TESTED & set(columns) else ()),
        *(describe_pivot_markers(report, pivoted) if pivoted is not None else ()),
        *(describe_missing_counts(report) if significance.comparisons and TESTED & set(columns) else ()),
        *((report.best.note,) if report.best.note and "miou" in columns else ()),
        *describe_costs(grid, finished, records, columns),
        *left_out,
        *describe_plateaus(records),
        *(describe_untrained_cells(grid, records) if miou else ()),
        f"Commit {', '.join(distinct_texts(finished['commit'])) or 'not recorded'}.",
    ]
    return lines + describe_flags(grid, significance)


def write_short_notes(report: Report, table: Table, columns: Collection[str]) -> list[str]:
    """Return sentences for the line below a table in a paper: the spread, the differences and the markers in it.

    Args:
        report: report of the grid.
        table: the table.
        columns: names of the columns that the sentences are about.
    """
    grid, significance = report.grid, report.significance
    text = "".join(text for row in table.rows for text in row)
    seeds = len(grid.seeds)
    notes: list[str] = []
    if list_metrics(columns, report.names) or DELTAS & set(columns) or any(map(is_per_image, columns)):
        complete = report.cells["n"].isin([0, seeds]).all()
        number = f"{seeds} seeds" if complete else "the finished seeds of each cell"
        folds = [f"{one.folds.folds}-fold cross-validation." for one in report.groups if one.folds is not None]
        notes += dict.fromkeys(folds)
        notes.append("One seed." if seeds == 1 else f"Mean ± standard deviation over {number}.")
    notes += describe_class_columns(report.names, columns, table if table.is_pivoted else None)
    notes += describe_image_metrics(report, columns)
    baseline = name_baselines(grid, report.groups)
    if TESTED & set(columns):
        interval = ", with 95 % interval" if "delta" in columns and "[" in text else ""
        notes.append(f"Δ: difference in mIoU to {baseline} in points{interval}.")
        notes += describe_shared_seeds(report)
    if table.marks:
        highest = "highest mean" + (" of each dataset" if len(report.groups) > 1 else "")
        equal = ", and cells not significantly different" if report.best.marks_equal_cells else ""
        reason = f"; {CONTRADICTION}" if report.best.is_contradicted and report.best.bold == "tied" else ""
        notes.append(f"Bold: {highest}{equal}{reason}.")
    if SIGNIFICANT in text:
        corrected = " after Holm's correction" if significance.num_claims > 1 else ""
        difference = f"difference to {baseline} " if table.is_pivoted else ""
        notes.append(f"{SIGNIFICANT} {difference}significant at 5 %{corrected}.")
    if NO_CLAIM in text:
        notes.append(f"{NO_CLAIM} fewer than {MIN_SEEDS} seeds: no claim of significance.")
    names = dict.fromkeys(flag.name for flags in significance.flags.values() for flag in flags)
    return notes + ([f"{FLAGGED} differs from the baseline also in {', '.join(names)}."] if names else [])
