"""Whether the order of the cells is the same with every seed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from fcnlab.analysis.resampling import Floats


@dataclass(frozen=True)
class RankStability:
    """The order of cells over the seeds that all of them have."""

    seeds: tuple[int, ...]
    first: dict[str, float]
    """The share of seeds with which the cell is the best; cells that tie share it."""
    mean_rank: dict[str, float]
    """1 is the best; cells that tie have the mean of their ranks."""
    kendall_tau: float
    """The mean over pairs of seeds of Kendall's tau-a between their orders; nan below two seeds or two cells."""

    @property
    def agreement(self) -> float:
        """How often two seeds put two cells in the same order: 1 is always, 0.5 is what chance gives."""
        return (1 + self.kendall_tau) / 2


def rank_stability(cells: Mapping[str, Mapping[int, float]]) -> RankStability:
    """Rank cells by a figure of which more is better: label -> seed -> figure, over the seeds that all cells have.

    Kendall's tau (Biometrika 30, 1938) between two seeds is the share of pairs of cells that both put in one order less
    the share that they put in opposite orders; a pair that ties with either counts as neither. Figures are nan where
    the cells share no seed.
    """
    labels = list(cells)
    seeds = sorted(set.intersection(*(set(by_seed) for by_seed in cells.values()))) if cells else []
    if not seeds:
        none = dict.fromkeys(labels, np.nan)
        return RankStability((), none, none, np.nan)
    figures = np.array([[cells[label][seed] for label in labels] for seed in seeds], dtype=np.float64)
    order = np.sign(figures[:, :, None] - figures[:, None, :])
    best = figures == figures.max(1, keepdims=True)
    first = (best / best.sum(1, keepdims=True)).mean(0)
    rank = (1 + ((1 - order).sum(2) - 1) / 2).mean(0)
    return RankStability(
        seeds=tuple(seeds),
        first=dict(zip(labels, first.tolist(), strict=True)),
        mean_rank=dict(zip(labels, rank.tolist(), strict=True)),
        kendall_tau=_mean_tau(order),
    )


def _mean_tau(order: Floats) -> float:
    """Kendall's tau-a, averaged over pairs of seeds, from signs of differences [seeds, cells, cells]."""
    seeds, cells, _ = order.shape
    if seeds < 2 or cells < 2:
        return float("nan")
    flat = order[:, *np.triu_indices(cells, 1)]
    tau = flat @ flat.T / flat.shape[1]
    return float(tau[np.triu_indices(seeds, 1)].mean())
