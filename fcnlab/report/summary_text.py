"""Summary of a grid's results in sentences."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import pandas as pd

from fcnlab.analysis import CONFIDENCE, MIN_SEEDS, Comparison, Difference, measure_rank_stability
from fcnlab.config.grid.grid import Grid
from fcnlab.report.best import select_best
from fcnlab.report.dataset_groups import DatasetGroup
from fcnlab.report.footnotes.differences import list_unpaired_cells
from fcnlab.report.significance import Significance
from fcnlab.report.tables.columns import FLAGGED, format_p_value, format_points
from fcnlab.report.tables.names import quote_name

Naming: TypeAlias = Callable[[str], str]
"""Function from the label of a cell to its name in a sentence."""

MAX_COMPARISONS = 8
"""Most comparisons that are described; of more, only the significant ones with the largest differences."""


def summarize(
    grid: Grid,
    trials: pd.DataFrame,
    cells: pd.DataFrame,
    significance: Significance,
    groups: Sequence[DatasetGroup],
) -> list[str]:
    """Return sentences on the best cell, the comparisons with the baseline, the order of cells and missing results.

    Args:
        grid: the grid.
        trials: frame with one row per trial.
        cells: frame with one row per cell.
        significance: statistics of the cells.
        groups: the cells by dataset.
    """
    if not cells["n"].any():
        return ["No trial has finished yet."]

    def name(cell: str) -> str:
        return quote_name(grid.display_name(cell))

    best: list[str] = []
    unpaired: list[str] = []
    order: list[str] = []
    for group in groups:
        on_dataset = f" on {group.name}" if len(groups) > 1 else ""
        of_group = cells[cells["cell"].isin(group.cells)]
        best += _describe_best(of_group, name, on_dataset)
        unpaired += _describe_unpaired(of_group, name)
        among = on_dataset + (" among the cells on the same images" if group.others else "")
        order += _describe_order(trials[trials["cell"].isin(group.same)], name, among)
    baselines = {cell: group.baseline for group in groups for cell in group.cells}
    return [
        *(best or ["There is no mIoU: no class has a labeled pixel in the evaluated split."]),
        *_describe_comparisons(significance, name, baselines),
        *unpaired,
        *order,
        *_limits(cells, significance, name),
    ]


def _describe_best(cells: pd.DataFrame, name: Naming, on_dataset: str) -> list[str]:
    best = select_best(cells)
    if best is None:
        return []
    is_only = cells["miou"].notna().sum() == 1
    subject = ("The only finished cell" if is_only else "The highest mean mIoU") + on_dataset
    text = f"{subject} is {name(best['cell'])} with {100 * best['miou']:.1f} %"
    text += f" ({best['n']} seeds)" if best["n"] > 1 else " (one seed)"
    others = int((cells["miou"] == best["miou"]).sum()) - 1
    same = f"; {others} other {'cells have' if others > 1 else 'cell has'} the same" if others else ""
    return [f"{text}{same}."]


def _describe_unpaired(cells: pd.DataFrame, name: Naming) -> list[str]:
    """Name the cells that cannot be compared with the baseline, since they have no seed in common with it."""
    baseline, unpaired = cells[cells["baseline"]].iloc[0], list_unpaired_cells(cells)
    if not unpaired:
        return []
    if not baseline["n"]:
        return [f"No trial of the baseline {name(baseline['cell'])} has finished, so no cell is compared with it."]
    verb = "has" if len(unpaired) == 1 else "have"
    return [f"{', '.join(map(name, unpaired))} {verb} no finished seed in common with {name(baseline['cell'])}."]


def _describe_comparisons(significance: Significance, name: Naming, baselines: Mapping[str, str]) -> list[str]:
    comparisons, claims = significance.comparisons, significance.num_claims

    def describe(cell: str) -> str:
        return _describe_comparison(name(cell), name(baselines[cell]), comparisons[cell], claims)

    if len(comparisons) <= MAX_COMPARISONS:
        lines = [
            describe(cells[0]) if len(cells) == 1 else _describe_insignificant(cells, comparisons, name, baseline)
            for baseline, cells in _group_insignificant(comparisons, baselines)
        ]
        untested = sum(one.difference.seeds < MIN_SEEDS for one in comparisons.values())
        if untested == len(comparisons) > 0:
            these = "this difference" if untested == 1 else "these differences"
            lines.append(f"No claim is made about {these}: fewer than {MIN_SEEDS} common seeds.")
        elif untested:
            lines.append(f"No claim is made about cells with fewer than {MIN_SEEDS} common seeds.")
        return lines
    clear = {cell: one for cell, one in comparisons.items() if one.significant}
    ranked = sorted(clear, key=lambda cell: -abs(clear[cell].difference.value))[:MAX_COMPARISONS]
    few, lines = len(comparisons) - claims, []
    if claims:
        more = f"; the {MAX_COMPARISONS} largest differences follow" if len(clear) > MAX_COMPARISONS else ""
        several = len({*baselines.values()}) > 1
        baseline = "the baseline of their dataset" if several else name(next(iter(baselines.values())))
        lines.append(f"{len(clear)} of {claims} cells differ significantly from {baseline}{more}.")
    if few:
        lines.append(f"No claim is made about {few} of {len(comparisons)} cells: fewer than {MIN_SEEDS} common seeds.")
    return [*lines, *map(describe, ranked)]


def _group_insignificant(
    comparisons: Mapping[str, Comparison], baselines: Mapping[str, str]
) -> list[tuple[str, list[str]]]:
    """Group the cells without a significant difference to the same baseline; each other cell is a group of its own.

    Returns:
        Baseline and cells of each group, in the order of the first cells.
    """
    groups: list[tuple[str, list[str]]] = []
    open_groups: dict[str, list[str]] = {}
    for cell, one in comparisons.items():
        plain = one.significant is False and not math.isnan(one.difference.low) and not _excludes_zero(one)
        if plain and baselines[cell] in open_groups:
            open_groups[baselines[cell]].append(cell)
            continue
        groups.append((baselines[cell], [cell]))
        if plain:
            open_groups[baselines[cell]] = groups[-1][1]
    return groups


def _excludes_zero(comparison: Comparison) -> bool:
    """Return whether the interval of a comparison excludes zero."""
    return comparison.difference.p_value < 1 - CONFIDENCE


def _format_difference(difference: Difference) -> tuple[str, str, str]:
    """Return the size of a difference, `more` or `less`, and its interval."""
    way = "more" if difference.value >= 0 else "less"
    interval = f"95 % interval {format_points(difference.low)} to {format_points(difference.high)}"
    return f"{abs(100 * difference.value):.1f} points", way, interval


def _describe_insignificant(
    cells: Sequence[str], comparisons: Mapping[str, Comparison], name: Naming, baseline: str
) -> str:
    """Describe several cells without a significant difference to the baseline in a sentence."""
    texts = []
    for cell in cells:
        one = comparisons[cell].difference
        points, way, interval = _format_difference(one)
        texts.append(f"{name(cell)} ({points} {way}, {interval}, {one.seeds} seeds)")
    return (
        f"There is no significant difference to {name(baseline)} for {', '.join(texts[:-1])} and {texts[-1]}. This "
        "does not show that they are equal: all differences within the intervals remain possible."
    )


def _describe_comparison(cell: str, baseline: str, comparison: Comparison, claims: int) -> str:
    """Describe a comparison in a sentence, with its p-value if the interval alone could mislead.

    Args:
        cell: name of the cell.
        baseline: name of the baseline.
        comparison: the comparison.
        claims: number of comparisons over which p-values are corrected.
    """
    one = comparison.difference
    if math.isnan(one.value):
        return f"{cell} and {baseline} have no mIoU to compare."
    points, way, interval = _format_difference(one)
    corrected = " after Holm's correction" if claims > 1 else ""
    if comparison.significant:
        return (
            f"{cell} reaches {points} of mIoU {way} than {baseline} ({interval}, {one.seeds} seeds): significant"
            f"{corrected}, {format_p_value(comparison.adjusted_p)}."
        )
    if math.isnan(one.low):
        return f"{cell} scored {points} of mIoU {way} than {baseline}; one image is too few for an interval."
    if comparison.significant is None:
        return f"{cell} scored {points} of mIoU {way} than {baseline} ({interval}, {_format_seeds(one.seeds)})."
    finding = f"There is no significant difference between {cell} and {baseline}: {points} {way}"
    if _excludes_zero(comparison):
        return (
            f"{finding} ({interval}, {one.seeds} seeds). The interval of this comparison excludes zero, but over "
            f"{claims} comparisons that is no longer unlikely by chance ({format_p_value(comparison.adjusted_p)}"
            f"{corrected})."
        )
    return (
        f"{finding} ({interval}, {one.seeds} seeds). This does not show that they are equal: all differences within "
        "the interval remain possible."
    )


def _format_seeds(number: int) -> str:
    return "one seed, without the variance of training" if number == 1 else f"{number} seeds"


def _describe_order(trials: pd.DataFrame, name: Naming, among: str) -> list[str]:
    """Describe in how many seeds the cell with the highest mean is the best one, and the stability of the order."""
    finished = trials[trials["status"] == "finished"].dropna(subset="miou")
    by_cell = {
        str(cell): dict(zip(map(int, group["seed"]), map(float, group["miou"]), strict=True))
        for cell, group in finished.groupby("cell", sort=False)
    }
    stability = measure_rank_stability(by_cell)
    if math.isnan(stability.kendall_tau) or len(stability.seeds) < MIN_SEEDS:
        return []
    number = len(stability.seeds)
    seeds = "seeds" if number == finished["seed"].nunique() else "seeds that all cells have"
    highest = str(finished.groupby("cell", sort=False)["miou"].mean().idxmax())
    wins, tied = stability.first[highest], stability.tied[highest]
    share = f"all {number}" if wins == number else f"{wins or 'none'} of {number}"
    shared = f" (tied with another cell in {'each' if tied == wins else tied} of them)" if tied else ""
    return [
        f"{name(highest)} has the highest mIoU in {share} {seeds}{shared}{among}. For two random seeds, "
        f"{100 * stability.agreement:.0f} % of the pairs of cells have the same order (50 % by chance)."
    ]


def _limits(cells: pd.DataFrame, significance: Significance, name: Naming) -> list[str]:
    """List incomplete cells and cells that are not comparable."""
    lines = []
    incomplete = cells[cells["n"] < cells["planned"]]
    if len(incomplete):
        verb = "is" if len(incomplete) == 1 else "are"
        lines.append(
            f"{len(incomplete)} of {len(cells)} cells {verb} incomplete: {', '.join(map(name, incomplete['cell']))}."
        )
    if significance.flags:
        flagged = ", ".join(map(name, significance.flags))
        lines.append(
            f"Cells that differ from the baseline in more than the axes, marked {FLAGGED} in the table: {flagged}."
        )
    return lines
