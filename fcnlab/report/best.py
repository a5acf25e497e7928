"""The best cells of each dataset of a grid, which tables show in bold."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import pandas as pd

from fcnlab.analysis import MIN_SEEDS, apply_holm, estimate_differences
from fcnlab.constants import Bold
from fcnlab.report.dataset_groups import DatasetGroup, find_same_images
from fcnlab.report.significance import Significance, load_counts
from fcnlab.report.trial_records import TrialRecords

RESAMPLES = 2_000
"""Bootstrap resamples of a comparison with the best cell, of which only the significance is shown."""


CONTRADICTION = "another cell is significantly better over the seeds that both have"
"""Reason why no cell but that with the highest mean is in bold."""


@dataclass(frozen=True)
class Best:
    """The cells with the highest mIoU of their dataset.

    Attributes:
        highest: labels of the cell with the highest mean mIoU of each dataset, and of cells with the same mean; empty
            if fewer than two cells have finished.
        tied: labels of these cells and of those that do not differ significantly.
        compared: number of cells that were compared with the best one.
        few_seeds: number of the other finished cells on the same images, for which no claim is made.
        other_images: number of the other finished cells, which were evaluated on other images.
        num_datasets: number of datasets with at least two finished cells.
        is_contradicted: whether a cell is significantly better than that with the highest mean of its dataset over the
            seeds that both have; only the highest mean of this dataset is in bold then.
        bold: the cells in bold.
    """

    highest: frozenset[str] = frozenset()
    tied: frozenset[str] = frozenset()
    compared: int = 0
    few_seeds: int = 0
    other_images: int = 0
    num_datasets: int = 0
    is_contradicted: bool = False
    bold: Bold = "tied"

    @property
    def marked(self) -> frozenset[str]:
        """Labels of the cells in bold."""
        return {"tied": self.tied, "max": self.highest, "none": frozenset[str]()}[self.bold]

    @property
    def marks_equal_cells(self) -> bool:
        """True if cells may be in bold because they do not differ significantly from the best one."""
        return self.bold == "tied" and self.compared > 0

    @property
    def note(self) -> str:
        """Footnote on the marks; empty if no cell is in bold, as where at most one of each dataset has finished."""
        if not self.num_datasets or self.bold == "none":
            return ""
        highest = "the highest mean mIoU" + (" of each dataset" if self.num_datasets > 1 else "")
        if self.bold == "max":
            return f"Bold: {highest}."
        if self.is_contradicted and not self.compared:
            return f"Bold: {highest} only; {CONTRADICTION}."
        if not self.compared:
            needed = (
                f"{MIN_SEEDS} seeds",
                "the counts of their trials",
                *(("the same images",) if self.other_images else ()),
            )
            needs = f"needs {', '.join(needed[:-1])} and {needed[-1]}"
            return (
                f"Bold: {highest}; no claim is made about its difference to the other cells, which "
                f"{needs if self.few_seeds else 'were evaluated on other images'}."
            )
        family = "within each dataset" if self.num_datasets > 1 else f"over {self.compared} comparisons"
        corrected = f", Holm's correction {family}" if self.compared > self.num_datasets else ""
        rest = "".join(
            f"; 1 cell {which} is not compared" if count == 1 else f"; {count} cells {which} are not compared"
            for count, which in (
                (self.few_seeds, f"with fewer than {MIN_SEEDS} common seeds"),
                (self.other_images, "evaluated on other images"),
            )
            if count
        )
        only = f"; only the highest mean where {CONTRADICTION}" if self.is_contradicted else ""
        return (
            f"Bold: {highest}, and each cell that does not differ significantly from it (5 %, paired by seed and "
            f"image{corrected}){rest}{only}."
        )


def select_best(cells: pd.DataFrame) -> pd.Series | None:
    """Return the row of the cell with the highest mean mIoU, the first of equal ones; None if no trial has finished.

    Args:
        cells: frame with one row per cell.
    """
    scored = cells[cells["miou"].notna()]
    return None if scored.empty else scored.iloc[int(scored["miou"].to_numpy().argmax())]


def select_cells(cells: pd.DataFrame, most: int) -> list[str]:
    """Return the labels of the baseline and the best other cells, in the order of the frame.

    Args:
        cells: frame with one row per cell.
        most: largest number of cells.
    """
    by_rank = cells.sort_values(["baseline", "miou"], ascending=False, kind="stable")
    selected = set(by_rank["cell"].head(most))
    return [str(cell) for cell in cells["cell"] if cell in selected]


def find_best(
    cells: pd.DataFrame, records: TrialRecords, groups: Iterable[DatasetGroup], significance: Significance
) -> Best:
    """Find the best cell of each dataset and the cells that do not differ significantly from it.

    Args:
        cells: frame with one row per cell.
        records: records of the finished trials.
        groups: the cells by dataset.
        significance: comparisons with the baselines, which are used again if a baseline is the best.
    """
    mean_miou = cells.set_index("cell")["miou"].dropna()
    found = [
        _find_best_of_dataset(means, records, group, significance)
        for group in groups
        if len(means := mean_miou[mean_miou.index.isin(group.cells)]) > 1
    ]
    return Best(
        highest=frozenset().union(*(one.highest for one in found)),
        tied=frozenset().union(*(one.tied for one in found)),
        compared=sum(one.compared for one in found),
        few_seeds=sum(one.few_seeds for one in found),
        other_images=sum(one.other_images for one in found),
        num_datasets=len(found),
        is_contradicted=any(one.is_contradicted for one in found),
    )


def _find_best_of_dataset(
    means: pd.Series, records: TrialRecords, group: DatasetGroup, significance: Significance
) -> Best:
    """Find the best cell of a dataset, given the mean mIoU of its finished cells by label."""
    best = str(means.idxmax())
    same = group.same if best in group.same else find_same_images(records, best, group.cells, group.folds)
    if best == group.baseline:
        comparisons = significance.comparisons
        differences = {cell: comparisons[cell].difference for cell in group.cells if cell in comparisons}
    else:
        counts = load_counts(records, (cell for cell in group.cells if cell in same))
        seeds = counts.get(best, {}).keys()
        enough = {cell: one for cell, one in counts.items() if len(one.keys() & seeds) >= MIN_SEEDS}
        differences = estimate_differences(enough, best, folds=group.folds, resamples=RESAMPLES)
    claims = {cell: one.significant for cell, one in apply_holm(differences).items() if one.significant is not None}
    other_images = sum(cell in records.by_cell and cell not in same for cell in means.index)
    highest = frozenset(map(str, means.index[means == means.max()]))
    # The means are over all seeds of a cell, and the differences over common ones, which can have another order.
    if any(clear and differences[cell].value > 0 for cell, clear in claims.items()):
        return Best(highest, tied=highest, other_images=other_images, num_datasets=1, is_contradicted=True)
    return Best(
        highest=highest,
        tied=highest | {cell for cell, clear in claims.items() if not clear},
        compared=len(claims),
        few_seeds=len(means) - 1 - len(claims) - other_images,
        other_images=other_images,
        num_datasets=1,
    )


def add_best(cells: pd.DataFrame, best: Best) -> pd.DataFrame:
    """Return a frame of cells with the column `best`, which is true for the cells in bold.

    Args:
        cells: frame with one row per cell.
        best: the best cells.
    """
    return cells.assign(best=cells["cell"].isin(best.marked))
