"""What was found, in plain sentences that say no more than the statistics do."""

from __future__ import annotations

import math

import pandas as pd

from fcnlab.analysis import MIN_SEEDS, Comparison, measure_rank_stability
from fcnlab.config.grid.grid import Grid
from fcnlab.report.significance import Significance
from fcnlab.report.tables.columns import FLAGGED

SHOWN = 8
"""Comparisons that are told one by one; of more, the clear ones."""


def summary_text(grid: Grid, trials: pd.DataFrame, cells: pd.DataFrame, significance: Significance) -> list[str]:
    """Sentences: which cell scored best, each comparison with the baseline, how stable the order is, what is open."""
    scored = cells[cells["n"] > 0]
    if scored.empty:
        return ["No trial has finished yet, so there is nothing to say."]
    return [
        _best(scored),
        *_comparisons(significance, grid.baseline.label),
        *_order(trials),
        *_open(cells, significance),
    ]


def _best(scored: pd.DataFrame) -> str:
    best = scored.sort_values("miou", ascending=False, kind="stable").iloc[0]
    alone = len(scored) == 1
    what = "The only cell with a figure" if alone else "The highest mean mIoU"
    text = f"{what} is {_named(best['cell'])} with {100 * best['miou']:.1f} %"
    return text + (f" ({best['n']} seeds)." if best["n"] > 1 else " (one seed).")


def _comparisons(significance: Significance, baseline: str) -> list[str]:
    found = significance.comparisons
    if len(found) <= SHOWN:
        return [_compared(_named(cell), _named(baseline), one) for cell, one in found.items()]
    clear = {cell: one for cell, one in found.items() if one.significant}
    ranked = sorted(clear, key=lambda cell: -abs(clear[cell].difference.value))[:SHOWN]
    more = f"; the {SHOWN} largest differences follow" if len(clear) > SHOWN else ""
    return [
        f"Of {len(found)} cells, {len(clear)} differ significantly from {_named(baseline)}{more}.",
        *(_compared(_named(cell), _named(baseline), clear[cell]) for cell in ranked),
    ]


def _compared(cell: str, baseline: str, comparison: Comparison) -> str:
    one = comparison.difference
    if math.isnan(one.value):
        return f"{cell} and {baseline} have no mIoU to compare."
    points, low, high = f"{abs(100 * one.value):.1f} points", f"{100 * one.low:+.1f}", f"{100 * one.high:+.1f}"
    way = "more" if one.value >= 0 else "less"
    interval = f"95 % interval {low} to {high}"
    if comparison.significant:
        return (
            f"{cell} reaches {points} of mIoU {way} than {baseline} ({interval}, {one.seeds} seeds): significant after "
            f"Holm's correction, p = {comparison.adjusted_p:.2g}."
        )
    if comparison.significant is None:
        return (
            f"{cell} scored {points} of mIoU {way} than {baseline} ({interval}, {_seeds(one.seeds)}); with fewer than "
            f"{MIN_SEEDS} seeds nothing is claimed."
        )
    return (
        f"Between {cell} and {baseline} no difference was shown: {points} {way} ({interval}, {one.seeds} seeds). "
        "That is no proof that they are equal: all differences within the interval remain possible."
    )


def _named(cell: str) -> str:
    """A label within a sentence: in quotation marks unless it reads as a word."""
    return cell if cell[:1].isalpha() and "," not in cell else f"“{cell}”"


def _seeds(number: int) -> str:
    return "one seed, so that the variance of training is not included" if number == 1 else f"{number} seeds"


def _order(trials: pd.DataFrame) -> list[str]:
    """How stable the order of the cells is over seeds."""
    finished = trials[trials["status"] == "finished"].dropna(subset="miou")
    by_cell = {
        str(cell): dict(zip(map(int, group["seed"]), map(float, group["miou"]), strict=True))
        for cell, group in finished.groupby("cell", sort=False)
    }
    stability = measure_rank_stability(by_cell)
    if math.isnan(stability.kendall_tau):
        return []
    first = max(stability.first, key=lambda cell: stability.first[cell])
    return [
        f"{_named(first)} is first with {100 * stability.first[first]:.0f} % of the seeds; two seeds put two cells in "
        f"the same order in {100 * stability.agreement:.0f} % of the cases (50 % is chance)."
    ]


def _open(cells: pd.DataFrame, significance: Significance) -> list[str]:
    """What the reader must not overlook."""
    lines = []
    incomplete = cells[cells["n"] < cells["planned"]]
    if len(incomplete):
        lines.append(
            f"{len(incomplete)} of {len(cells)} cells are incomplete: {', '.join(map(_named, incomplete['cell']))}."
        )
    if significance.flags:
        flagged = ", ".join(map(_named, significance.flags))
        lines.append(f"Not alike in more than the grid's axes, and marked {FLAGGED} in the table: {flagged}.")
    return lines
