"""Effects: mean differences in mIoU over pairs of cells, such as those that differ in one axis of a grid."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TypeVar

import numpy as np

from fcnlab.analysis.differences import check_labels
from fcnlab.analysis.intervals import Interval, compute_fold_interval, compute_interval
from fcnlab.analysis.resampling import BootstrapSample, CellCounts
from fcnlab.config.dataset import CrossValidation
from fcnlab.metrics.summary import Floats, compute_class_iou, mean_over_classes

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class Effect:
    """Mean of the differences in mIoU of several pairs of cells, as a fraction of 1.

    Attributes:
        value: mean over the pairs and seeds.
        low: lower end of the confidence interval at the level `CONFIDENCE`.
        high: upper end of the interval.
        p_value: two-sided p-value, without correction.
        seeds: the seeds that all cells of the pairs have.
        by_pair: difference of each pair, averaged over the seeds.
    """

    value: float
    low: float
    high: float
    p_value: float
    seeds: tuple[int, ...]
    by_pair: tuple[float, ...]


def estimate_effects(
    cells: Mapping[str, CellCounts],
    pairs: Mapping[Key, Sequence[tuple[str, str]]],
    *,
    folds: CrossValidation | None = None,
    resamples: int = 10_000,
    seed: int = 0,
) -> dict[Key, Effect]:
    """Estimate effects, each the mean over pairs of cells of the difference in mIoU of the first to the second.

    The differences are averaged for each seed and each resample of the images, so that an interval is that of
    `estimate_difference` for the average: the pairs are fixed, seeds and images are random. The effect of a single pair
    is its difference.

    Args:
        cells: cell label -> counts by seed, all of the same images.
        pairs: key of an effect -> pairs of labels.
        folds: the cross-validation, whose folds have other images; None if all seeds have the same images.
        resamples: number of bootstrap resamples.
        seed: seed of the resampling.

    Returns:
        The effects by key, without those whose cells have no seed in common.

    Raises:
        RunError: the cells of a pair were evaluated on different images or classes.
    """

    @cache  # most cells belong to a pair of each axis
    def sample(label: str, seeds: tuple[int, ...]) -> BootstrapSample:
        return BootstrapSample.from_counts(cells[label], seeds, resamples, seed).mean_over_classes()

    effects = {}
    for key, labels in pairs.items():
        seeds = tuple(sorted(set.intersection(*(set(cells[label]) for pair in labels for label in pair))))
        if not seeds:
            continue
        for one, other in labels:
            for number in seeds[:1] if folds is None else seeds:  # each fold has other images
                check_labels(cells[one][number], cells[other][number])
        if folds is not None and len(seeds) > 1:
            by_pair = np.stack([_compute_miou(cells[a], seeds) - _compute_miou(cells[b], seeds) for a, b in labels])
            interval = compute_fold_interval(by_pair.mean(0), folds.test_ratio)
        else:
            differences = [sample(one, seeds) - sample(other, seeds) for one, other in labels]
            by_pair = np.stack([difference.values for difference in differences])
            interval = compute_interval(BootstrapSample.mean(differences))
        effects[key] = _describe(interval, seeds, by_pair)
    return effects


def _compute_miou(cell: CellCounts, seeds: Sequence[int]) -> Floats:
    """Return the mIoU of each seed on its own images."""
    return mean_over_classes(np.stack([compute_class_iou(cell[seed].sum(0)) for seed in seeds]))


def _describe(interval: Interval, seeds: tuple[int, ...], by_pair: Floats) -> Effect:
    return Effect(
        value=float(interval.value),
        low=float(interval.low),
        high=float(interval.high),
        p_value=float(interval.p_value),
        seeds=seeds,
        by_pair=tuple(by_pair.mean(1).tolist()),
    )
