"""Stability of the order of cells over seeds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from fcnlab.metrics.summary import Floats


@dataclass(frozen=True)
class RankStability:
    """Stability of the order of cells over the seeds that all cells have.

    Attributes:
        seeds: the common seeds.
        first: for each cell, the number of seeds in which no other cell is better, also those of `tied`.
        tied: for each cell, the number of these seeds in which another cell is equal.
        kendall_tau: mean over pairs of seeds of Kendall's tau-a; NaN for fewer than two seeds or two cells.
    """

    seeds: tuple[int, ...]
    first: dict[str, int]
    tied: dict[str, int]
    kendall_tau: float

    @property
    def agreement(self) -> float:
        """Probability that two seeds order two cells in the same way: 1 is always, 0.5 is chance."""
        return (1 + self.kendall_tau) / 2


def measure_rank_stability(cells: Mapping[str, Mapping[int, float]]) -> RankStability:
    """Measure how much the order of cells varies between seeds.

    Kendall's tau-a (Biometrika 30, 1938) of two seeds is the fraction of pairs of cells that both seeds put in the same
    order, minus the fraction that they put in opposite orders; a tied pair counts as neither.

    Args:
        cells: cell label -> seed -> value, where greater is better.

    Returns:
        Kendall's tau is NaN, and numbers are 0, where the cells have no seed in common.

    Example:
        >>> cells = {"fcn32s": {0: 0.5, 1: 0.6}, "fcn8s": {0: 0.7, 1: 0.8}}
        >>> measure_rank_stability(cells).first
        {'fcn32s': 0, 'fcn8s': 2}
    """
    labels = list(cells)
    seeds = sorted(set.intersection(*(set(by_seed) for by_seed in cells.values()))) if cells else []
    if not seeds:
        return RankStability((), dict.fromkeys(labels, 0), dict.fromkeys(labels, 0), np.nan)
    values = np.array([[cells[label][seed] for label in labels] for seed in seeds], dtype=np.float64)
    best = values == values.max(1, keepdims=True)
    first, tied = best.sum(0), (best & (best.sum(1, keepdims=True) > 1)).sum(0)
    return RankStability(
        seeds=tuple(seeds),
        first=dict(zip(labels, first.tolist(), strict=True)),
        tied=dict(zip(labels, tied.tolist(), strict=True)),
        kendall_tau=_mean_kendall_tau(values),
    )


def _mean_kendall_tau(values: Floats) -> float:
    """Average Kendall's tau-a of values [seeds, cells] over all pairs of seeds."""
    seeds, cells = values.shape
    if seeds < 2 or cells < 2:
        return float("nan")
    order = np.sign(values[:, :, None] - values[:, None, :])
    pairs = order[:, *np.triu_indices(cells, 1)]
    tau = pairs @ pairs.T / pairs.shape[1]
    return float(tau[np.triu_indices(seeds, 1)].mean())
