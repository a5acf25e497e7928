"""The cells of a grid, judged: intervals and tests of their differences to the baseline, and what spoils them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from fcnlab.analysis import CellCounts, Comparison, compare_to_baseline
from fcnlab.config.grid.grid import Grid
from fcnlab.report.trial_records import TrialRecords
from fcnlab.trial.comparability import Flag, check_comparability

CONFIDENCE = 0.95
RESAMPLES = 10_000
BUDGET = 400_000
"""Resamples of all cells of a grid together: a grid of hundreds of cells has fewer for each, so that it stays quick."""


@dataclass(frozen=True)
class Significance:
    """What the statistics say of a grid's cells, by their labels; a cell without counts has no comparison."""

    comparisons: dict[str, Comparison]
    flags: dict[str, list[Flag]]
    resamples: int


def compute_significance(grid: Grid, records: TrialRecords) -> Significance:
    """Compare each cell with the baseline, and look whether they can be compared at all.

    A cell whose counts are of other images or classes than the baseline's has no comparison: its flags say why.
    """
    resamples = max(1000, min(RESAMPLES, BUDGET // len(grid.cells)))
    baseline = grid.baseline.label
    reference = records.counts(baseline)
    cells = {label: counts for cell in grid.cells if (counts := records.counts(label := cell.label))}
    alike = {label: cell for label, cell in cells.items() if _on_the_same(cell, reference)}
    made = compare_to_baseline(alike, baseline, resamples=resamples, confidence=CONFIDENCE) if reference else {}
    flagged = {label: list(by_seed.values()) for label, by_seed in records.by_cell.items()}
    return Significance(made, check_comparability(flagged, baseline, grid.axes), resamples)


def _on_the_same(cell: CellCounts, reference: CellCounts) -> bool:
    """Whether all trials were scored on the same labels as those of the baseline."""
    labels = next((counts[..., 2] for counts in reference.values()), None)
    return labels is not None and all(np.array_equal(counts[..., 2], labels) for counts in cell.values())


def with_differences(cells: pd.DataFrame, significance: Significance) -> pd.DataFrame:
    """A frame of cells with the columns that the statistics give.

    `delta_low` and `delta_high` (the 95 % interval), `p_value`, `p_holm`, `significant` (nothing where no claim is
    made) and `flags`, before the costs.
    """
    found = [significance.comparisons.get(cell) for cell in cells["cell"]]
    columns = {
        "delta_low": [one.difference.low if one else np.nan for one in found],
        "delta_high": [one.difference.high if one else np.nan for one in found],
        "p_value": [one.difference.p_value if one else np.nan for one in found],
        "p_holm": [one.adjusted_p if one else np.nan for one in found],
        "significant": pd.array([one.significant if one else None for one in found], dtype="boolean"),
        "flags": [", ".join(flag.name for flag in significance.flags.get(cell, ())) for cell in cells["cell"]],
    }
    at = list(cells.columns).index("params")
    return pd.concat([cells.iloc[:, :at], pd.DataFrame(columns, index=cells.index), cells.iloc[:, at:]], axis=1)
