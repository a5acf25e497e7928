"""The best cell of a grid and the cells that do not differ significantly from it; tables show them in bold."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import pandas as pd

from fcnlab.analysis import MIN_SEEDS, CellCounts, Comparison, compare_to_baseline

RESAMPLES = 2_000
"""Bootstrap resamples of a comparison with the best cell, of which only the significance is shown."""


@dataclass(frozen=True)
class Best:
    """The cells with the highest mIoU.

    Attributes:
        cell: label of the cell with the highest mean mIoU; empty if fewer than two cells have finished.
        level: labels of this cell, of cells with the same mean, and of those that do not differ significantly.
        compared: number of cells that were compared with it.
        others: number of the other finished cells on the same images, for which no claim is made.
        unlike: number of the other finished cells, which were evaluated on other images.
    """

    cell: str = ""
    level: frozenset[str] = frozenset()
    compared: int = 0
    others: int = 0
    unlike: int = 0

    @property
    def note(self) -> str:
        """Footnote on the marks; empty if at most one cell has finished."""
        if not self.compared and not self.others and not self.unlike:
            return ""
        if not self.compared:
            needed = (
                f"{MIN_SEEDS} seeds",
                "the counts of their trials",
                *(("the same images",) if self.unlike else ()),
            )
            needs = f"needs {', '.join(needed[:-1])} and {needed[-1]}"
            return (
                "Bold: the highest mean mIoU; no claim is made about its difference to the other cells, which "
                f"{needs if self.others else 'were evaluated on other images'}."
            )
        corrected = f", Holm's correction over {self.compared} comparisons" if self.compared > 1 else ""
        rest = "".join(
            f"; 1 cell {which} is not compared" if count == 1 else f"; {count} cells {which} are not compared"
            for count, which in (
                (self.others, f"with fewer than {MIN_SEEDS} common seeds"),
                (self.unlike, "evaluated on other images"),
            )
            if count
        )
        return (
            "Bold: the highest mean mIoU, and each cell that does not differ significantly from it (5 %, paired by "
            f"seed and image{corrected}){rest}."
        )


def select_best(cells: pd.DataFrame) -> pd.Series | None:
    """Return the row of the cell with the highest mean mIoU, the first of equal ones; None if no trial has finished.

    Args:
        cells: frame with one row per cell.
    """
    scored = cells[cells["miou"].notna()]
    return None if scored.empty else scored.iloc[int(scored["miou"].to_numpy().argmax())]


def find_best(
    cells: pd.DataFrame,
    counts: Mapping[str, CellCounts],
    baseline: str,
    comparisons: Mapping[str, Comparison],
    confidence: float,
    unlike: Collection[str] = (),
) -> Best:
    """Find the best cell and those that do not differ significantly from it.

    Args:
        cells: frame with one row per cell.
        counts: cell label -> counts by seed, of the cells that were evaluated on the same images as the best one.
        baseline: label of the baseline.
        comparisons: comparisons with the baseline, which are used again if it is the best.
        confidence: confidence level of the intervals.
        unlike: labels of the cells that were evaluated on other images than the best one.
    """
    means, row = cells.set_index("cell")["miou"].dropna(), select_best(cells)
    if row is None or len(means) < 2:
        return Best()
    best = str(row["cell"])
    if best == baseline:
        differences: Mapping[str, Comparison] = comparisons
    elif best in counts:
        enough = {label: one for label, one in counts.items() if len(one.keys() & counts[best].keys()) >= MIN_SEEDS}
        differences = (
            compare_to_baseline(enough, best, resamples=RESAMPLES, confidence=confidence) if best in enough else {}
        )
    else:
        differences = {}
    claims = {label: one.significant for label, one in differences.items() if one.significant is not None}
    level = {*means.index[means == means.max()], *(label for label, clear in claims.items() if not clear)}
    other_images = int(means.index.isin(list(unlike)).sum())
    others = len(means) - 1 - len(claims) - other_images
    return Best(best, frozenset(map(str, level)), len(claims), others, other_images)


def add_best(cells: pd.DataFrame, best: Best) -> pd.DataFrame:
    """Return a frame of cells with the column `best`: true for the best cell and those that do not differ from it.

    Args:
        cells: frame with one row per cell.
        best: the best cells.
    """
    return cells.assign(best=cells["cell"].isin(best.level))
