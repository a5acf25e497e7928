"""Statistics of a grid: intervals and tests of the differences to the baselines, and comparability flags."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from fcnlab.analysis import CellCounts, Comparison, Difference, apply_holm, estimate_differences
from fcnlab.config.grid.grid import Grid
from fcnlab.report.dataset_groups import DatasetGroup
from fcnlab.report.trial_records import TrialRecords
from fcnlab.trial.comparability import Flag, check_comparability

RESAMPLES = 10_000
BUDGET = 400_000
"""Total number of resamples of a grid; a grid with hundreds of cells has fewer for each to stay fast."""


@dataclass(frozen=True)
class Significance:
    """Statistics of the cells of a grid.

    Attributes:
        comparisons: cell label -> comparison with the baseline of its dataset; cells without counts have none.
        flags: cell label -> reasons why it is not comparable with this baseline.
        resamples: number of bootstrap resamples.
    """

    comparisons: dict[str, Comparison]
    flags: dict[str, list[Flag]]
    resamples: int

    @property
    def num_claims(self) -> int:
        """Number of comparisons about which a claim is made, over which their p-values are corrected."""
        return sum(one.significant is not None for one in self.comparisons.values())


def load_counts(records: TrialRecords, cells: Iterable[str]) -> dict[str, CellCounts]:
    """Return the counts of cells by label, without cells that have none.

    Args:
        records: records of the finished trials.
        cells: labels of the cells.
    """
    return {cell: counts for cell in cells if (counts := records.counts(cell))}


def choose_resamples(grid: Grid) -> int:
    """Return the number of bootstrap resamples of each cell.

    Args:
        grid: the grid.
    """
    return max(1000, min(RESAMPLES, BUDGET // len(grid.cells)))


def compute_significance(grid: Grid, records: TrialRecords, groups: Collection[DatasetGroup]) -> Significance:
    """Compare each cell with the baseline of its dataset and flag cells that are not comparable.

    A cell that was evaluated on other images or classes than its baseline has flags and no comparison. Holm's
    correction is over all comparisons of the grid.

    Args:
        grid: the grid.
        records: records of the finished trials.
        groups: the cells by dataset.
    """
    resamples = choose_resamples(grid)
    differences: dict[str, Difference] = {}
    flags: dict[str, list[Flag]] = {}
    for group in groups:
        counts = load_counts(records, (cell for cell in group.cells if cell in group.same))
        differences |= estimate_differences(counts, group.baseline, folds=group.folds, resamples=resamples)
        finished = {cell: list(records.by_cell[cell].values()) for cell in group.cells if cell in records.by_cell}
        flags |= check_comparability(finished, group.baseline, grid.axes)
    return Significance(apply_holm(differences), flags, resamples)


def add_differences(cells: pd.DataFrame, significance: Significance) -> pd.DataFrame:
    """Return a frame of cells with the columns of the statistics, before the costs.

    The columns are `delta_low`, `delta_high` (the 95 % interval), `p_value`, `p_holm`, `significant` (missing where no
    claim is made) and `flags`. Where there is a comparison, `delta`, `delta_std` and `delta_n` are those of its seeds:
    the counts of a trial may be missing although its metrics are known.

    Args:
        cells: frame with one row per cell.
        significance: statistics of the cells.
    """
    comparisons = [significance.comparisons.get(cell) for cell in cells["cell"]]
    columns = {
        "delta_low": [one.difference.low if one else np.nan for one in comparisons],
        "delta_high": [one.difference.high if one else np.nan for one in comparisons],
        "p_value": [one.difference.p_value if one else np.nan for one in comparisons],
        "p_holm": [one.adjusted_p if one else np.nan for one in comparisons],
        "significant": pd.array([one.significant if one else None for one in comparisons], dtype="boolean"),
        "flags": [", ".join(flag.name for flag in significance.flags.get(cell, ())) for cell in cells["cell"]],
    }
    own: dict[str, list[float]] = {
        "delta": [one.difference.value if one else np.nan for one in comparisons],
        "delta_std": [pd.Series(one.difference.by_seed).std() if one else np.nan for one in comparisons],
        "delta_n": [one.difference.seeds if one else 0 for one in comparisons],
    }
    compared = np.array([one is not None for one in comparisons], dtype=bool)
    cells = cells.assign(**{name: np.where(compared, values, cells[name]) for name, values in own.items()})
    costs = list(cells.columns).index("params")
    return pd.concat([cells.iloc[:, :costs], pd.DataFrame(columns, index=cells.index), cells.iloc[:, costs:]], axis=1)
