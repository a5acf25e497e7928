"""Summary of a grid's results in sentences."""

from __future__ import annotations

import math

import pandas as pd

from fcnlab.analysis import MIN_SEEDS, Comparison, measure_rank_stability
from fcnlab.config.grid.grid import Grid
from fcnlab.report.significance import Significance
from fcnlab.report.tables.columns import FLAGGED, format_points

MAX_COMPARISONS = 8
"""Most comparisons that are described; of more, only the significant ones with the largest differences."""


def summarize(grid: Grid, trials: pd.DataFrame, cells: pd.DataFrame, significance: Significance) -> list[str]:
    """Return sentences on the best cell, the comparisons with the baseline, the order of cells and missing results.

    Args:
        grid: the grid.
        trials: frame with one row per trial.
        cells: frame with one row per cell.
        significance: statistics of the cells.
    """
    cells, trials = (frame.assign(cell=frame["cell"].map(grid.display_name)) for frame in (cells, trials))
    significance = significance.rename(grid.display_name)
    scored = cells[cells["n"] > 0]
    if scored.empty:
        return ["No trial has finished yet."]
    return [
        _describe_best(scored),
        *_describe_comparisons(significance, grid.display_name(grid.baseline.label)),
        *_describe_order(trials),
        *_limits(cells, significance),
    ]


def _describe_best(scored: pd.DataFrame) -> str:
    best = scored.sort_values("miou", ascending=False, kind="stable").iloc[0]
    subject = "The only finished cell" if len(scored) == 1 else "The highest mean mIoU"
    text = f"{subject} is {_quote(best['cell'])} with {100 * best['miou']:.1f} %"
    text += f" ({best['n']} seeds)" if best["n"] > 1 else " (one seed)"
    others = int((scored["miou"] == best["miou"]).sum()) - 1
    return f"{text}, and the same of {others} other cell{'s' if others > 1 else ''}." if others > 0 else f"{text}."


def _describe_comparisons(significance: Significance, baseline: str) -> list[str]:
    found = significance.comparisons
    if len(found) <= MAX_COMPARISONS:
        lines = [_describe_comparison(_quote(cell), _quote(baseline), one) for cell, one in found.items()]
        untested = sum(one.difference.seeds < MIN_SEEDS for one in found.values())
        if untested == len(found) > 0:
            lines.append(f"No claim is made about these differences: fewer than {MIN_SEEDS} common seeds.")
        elif untested:
            lines.append(f"No claim is made about cells with fewer than {MIN_SEEDS} common seeds.")
        return lines
    clear = {cell: one for cell, one in found.items() if one.significant}
    ranked = sorted(clear, key=lambda cell: -abs(clear[cell].difference.value))[:MAX_COMPARISONS]
    tested = sum(one.significant is not None for one in found.values())
    few = len(found) - tested
    lines = [f"No claim is made about {few} of {len(found)} cells: fewer than {MIN_SEEDS} common seeds."] if few else []
    if tested:
        more = f"; the {MAX_COMPARISONS} largest differences follow" if len(clear) > MAX_COMPARISONS else ""
        lines.insert(0, f"{len(clear)} of {tested} cells differ significantly from {_quote(baseline)}{more}.")
    return [*lines, *(_describe_comparison(_quote(cell), _quote(baseline), clear[cell]) for cell in ranked)]


def _describe_comparison(cell: str, baseline: str, comparison: Comparison) -> str:
    one = comparison.difference
    if math.isnan(one.value):
        return f"{cell} and {baseline} have no mIoU to compare."
    points, way = f"{abs(100 * one.value):.1f} points", "more" if one.value >= 0 else "less"
    interval = f"95 % interval {format_points(one.low)} to {format_points(one.high)}"
    if comparison.significant:
        return (
            f"{cell} reaches {points} of mIoU {way} than {baseline} ({interval}, {one.seeds} seeds): significant after "
            f"Holm's correction, p = {comparison.adjusted_p:.2g}."
        )
    if comparison.significant is None:
        return f"{cell} scored {points} of mIoU {way} than {baseline} ({interval}, {_format_seeds(one.seeds)})."
    return (
        f"There is no significant difference between {cell} and {baseline}: {points} {way} ({interval}, {one.seeds} "
        "seeds). This does not show that they are equal: all differences within the interval remain possible."
    )


def _quote(cell: str) -> str:
    """Quote a label unless it is a single word."""
    return f"“{cell}”" if not cell[:1].isalpha() or "," in cell or " " in cell else cell


def _format_seeds(number: int) -> str:
    return "one seed, without the variance of training" if number == 1 else f"{number} seeds"


def _describe_order(trials: pd.DataFrame) -> list[str]:
    """Describe the stability of the order of the cells over seeds."""
    finished = trials[trials["status"] == "finished"].dropna(subset="miou")
    by_cell = {
        str(cell): dict(zip(map(int, group["seed"]), map(float, group["miou"]), strict=True))
        for cell, group in finished.groupby("cell", sort=False)
    }
    stability = measure_rank_stability(by_cell)
    if math.isnan(stability.kendall_tau) or len(stability.seeds) < MIN_SEEDS:
        return []
    first = max(stability.first, key=lambda cell: stability.first[cell])
    seeds = "the seeds" if len(stability.seeds) == finished["seed"].nunique() else "the seeds that all cells have"
    tied = ", where tied cells share a seed" if stability.tied else ""
    return [
        f"{_quote(first)} has the highest mIoU in {100 * stability.first[first]:.0f} % of {seeds}{tied}; two seeds "
        f"order two cells in the same way in {100 * stability.agreement:.0f} % of the cases (50 % is chance)."
    ]


def _limits(cells: pd.DataFrame, significance: Significance) -> list[str]:
    """List incomplete cells and cells that are not comparable."""
    lines = []
    incomplete = cells[cells["n"] < cells["planned"]]
    if len(incomplete):
        verb = "is" if len(incomplete) == 1 else "are"
        lines.append(
            f"{len(incomplete)} of {len(cells)} cells {verb} incomplete: {', '.join(map(_quote, incomplete['cell']))}."
        )
    if significance.flags:
        flagged = ", ".join(map(_quote, significance.flags))
        lines.append(
            f"Cells that differ from the baseline in more than the axes, marked {FLAGGED} in the table: {flagged}."
        )
    return lines
