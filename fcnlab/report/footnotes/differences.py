"""Footnotes on the differences to the baseline: their intervals, tests and markers."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

import pandas as pd

from fcnlab.analysis import CONFIDENCE, MIN_SEEDS
from fcnlab.config.grid.grid import Grid
from fcnlab.console import format_count
from fcnlab.report.dataset_groups import DatasetGroup
from fcnlab.report.footnotes.names import list_cells, name_cell
from fcnlab.report.significance import Significance
from fcnlab.report.tables.columns import NO_CLAIM, SIGNIFICANT
from fcnlab.report.tables.table import Table
from fcnlab.report.trial_records import find_missing_counts

if TYPE_CHECKING:
    from fcnlab.report.report import Report

TESTED = frozenset({"delta", "delta_mean", "delta_std", "p_value", "p_holm"})
"""Columns of the difference to the baseline."""


DELTAS = frozenset({"delta", "delta_mean"})
"""Columns of the mean difference to the baseline over seeds."""


def name_baselines(grid: Grid, groups: Sequence[DatasetGroup]) -> str:
    """Return the name of the baseline for a sentence, or a phrase if each dataset has its own.

    Args:
        grid: the grid.
        groups: the cells by dataset.
    """
    return name_cell(grid, grid.baseline.label) if len(groups) == 1 else "the baseline of the dataset"


def describe_differences(report: Report, finished: pd.DataFrame, columns: Collection[str]) -> list[str]:
    """Describe the differences, their intervals and the markers.

    Args:
        report: report of the grid.
        finished: frame of the finished trials.
        columns: names of the shown columns.
    """
    if len(report.grid.cells) == 1:
        return []
    delta = f"Δ is the difference to {name_baselines(report.grid, report.groups)}"
    listed = "; ".join(f"{name_cell(report.grid, group.baseline)} on {group.name}" for group in report.groups)
    of_datasets = [f"Baselines: {listed}."] if len(report.groups) > 1 else []
    if not finished["cell"].isin([group.baseline for group in report.groups]).any():
        return [f"{delta}, of which no trial has finished.", *of_datasets]
    if report.significance.comparisons:
        lines = [f"{delta} in points, paired by seed and image, with {_describe_interval(report)}.", *of_datasets]
        lines += _describe_markers(report.significance, columns)
    else:
        reason = "; there are no counts for an interval" if _have_no_counts(report) else ""
        lines = [f"{delta}, paired by seed{reason}.", *of_datasets]
    lines += describe_shared_seeds(report)
    return lines + [line for group in report.groups for line in _describe_excluded_cells(report, group)]


def describe_shared_seeds(report: Report) -> list[str]:
    """Explain differences that are over fewer seeds than the means of their cell or of its baseline.

    Args:
        report: report of the grid.

    Returns:
        One sentence; none if all means and differences are over the same seeds.
    """
    number = dict(zip(report.cells["cell"], report.cells["n"], strict=True))
    baselines = {cell: group.baseline for group in report.groups for cell in group.cells}
    for cell, shared in zip(report.cells["cell"], report.cells["delta_n"], strict=True):
        if 0 < shared < max(number[cell], number[baselines[cell]]):
            shared_with = name_baselines(report.grid, report.groups)
            return [f"Δ is over the seeds shared with {shared_with}; it can differ from the difference of the means."]
    return []


def _have_no_counts(report: Report) -> bool:
    """Return whether a finished cell has no interval for no other reason than missing counts."""
    explained = {cell for group in report.groups for cell in (group.baseline, *group.others)}
    explained |= set(list_unpaired_cells(report.cells))
    return bool((report.cells["miou"].notna() & ~report.cells["cell"].isin(explained)).any())


def _describe_interval(report: Report) -> str:
    """Describe the interval of the differences, and the variances in it."""
    seeds = {one.difference.seeds for one in report.significance.comparisons.values()}
    parts = " only" if max(seeds) == 1 else " and of seeds" if min(seeds) > 1 else ", and of seeds if two are shared"
    methods = []
    if min(seeds) == 1 or any(group.folds is None for group in report.groups):
        methods.append(f"variance of images ({report.significance.resamples:,} bootstrap resamples){parts}")
    if max(seeds) > 1 and any(group.folds is not None for group in report.groups):
        methods.append(
            "variance of folds corrected for their common training images (Nadeau and Bengio, 2003; approximate)"
        )
    return f"its {100 * CONFIDENCE:.0f} % interval: Student's t, {'; in a cross-validation '.join(methods)}"


def _describe_markers(significance: Significance, columns: Collection[str]) -> list[str]:
    """Describe the markers behind differences."""
    lines, claims = [], significance.num_claims
    if claims and not DELTAS.isdisjoint(columns):
        several = f" after Holm's correction over {claims} comparisons; the intervals are not corrected"
        lines.append(f"{SIGNIFICANT}: significant at 5 %{several if claims > 1 else ''}.")
    if min(one.difference.seeds for one in significance.comparisons.values()) < MIN_SEEDS:
        lines.append(f"{NO_CLAIM}: fewer than {MIN_SEEDS} seeds, so no claim of significance is made.")
    return lines


def describe_pivot_markers(report: Report, table: Table) -> list[str]:
    """Describe the markers of a pivoted table, which shows no differences.

    Args:
        report: report of the grid.
        table: the pivoted table.
    """
    text = "".join(text for row in table.rows for text in row[table.text_columns :])
    claims = report.significance.num_claims
    corrected = f" after Holm's correction over {claims} comparisons" if claims > 1 else ""
    baseline = name_baselines(report.grid, report.groups)
    lines = []
    if SIGNIFICANT in text:
        lines.append(f"{SIGNIFICANT}: the difference in mIoU to {baseline} is significant at 5 %{corrected}.")
    if NO_CLAIM in text:
        lines.append(f"{NO_CLAIM}: fewer than {MIN_SEEDS} seeds shared with {baseline}, so no claim of significance.")
    return lines


def _describe_excluded_cells(report: Report, group: DatasetGroup) -> list[str]:
    """Name the cells of a dataset that have no interval or no difference."""
    cells, lines = report.cells[report.cells["cell"].isin(group.cells)], []
    baseline = name_cell(report.grid, group.baseline)
    if group.others and group.reference == group.baseline:
        verb, whose = ("was", "its") if len(group.others) == 1 else ("were", "their")
        lines.append(
            f"{list_cells([name_cell(report.grid, cell) for cell in group.others])} {verb} evaluated on other images "
            f"or classes than {baseline}: {whose} Δ has no interval."
        )
    unpaired = [name_cell(report.grid, cell) for cell in list_unpaired_cells(cells)]
    if unpaired:
        lines.append(f"{list_cells(unpaired)}: no Δ without a finished seed in common with {baseline}.")
    return lines


def list_unpaired_cells(cells: pd.DataFrame) -> list[str]:
    """Return the labels of the cells with an mIoU that have no finished seed in common with the baseline.

    Args:
        cells: frame with one row per cell.
    """
    return [str(cell) for cell in cells["cell"][cells["miou"].notna() & (cells["delta_n"] == 0) & ~cells["baseline"]]]


def describe_missing_counts(report: Report) -> list[str]:
    """Count the finished trials without counts, which are in the mean of their cell and not in its difference.

    Args:
        report: report of the grid.
    """
    missing = sum(find_missing_counts(report.cells, report.records).values())
    if not missing:
        return []
    return [
        f"The counts of {format_count(missing, 'trial')} could not be read: Δ is over the seeds with counts, and has "
        "no interval where there are none."
    ]
