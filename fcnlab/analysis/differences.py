"""Differences of mIoU and of the IoU of each class between cells and the baseline, with intervals and tests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fcnlab.analysis.holm import adjust_p_values
from fcnlab.analysis.intervals import CONFIDENCE, MIN_SEEDS, compute_interval
from fcnlab.analysis.resampling import BootstrapSample, CellCounts
from fcnlab.errors import RunError
from fcnlab.metrics.summary import Counts, Floats


@dataclass(frozen=True)
class ClassDifferences:
    """Differences of the IoU of each class; NaN for a class without a labeled pixel in the split.

    Attributes:
        value: differences, [num_classes].
        low: lower ends of the intervals, [num_classes].
        high: upper ends of the intervals, [num_classes].
        p_value: two-sided p-values without a correction for the number of classes, [num_classes].
        images: number of images in which the class is labeled, [num_classes]; few images make a rough interval.
    """

    value: Floats
    low: Floats
    high: Floats
    p_value: Floats
    images: NDArray[np.int64]


@dataclass(frozen=True)
class Difference:
    """Difference of the mIoU of a cell to that of the baseline, over the seeds that both have, as a fraction of 1.

    Attributes:
        value: mean difference over seeds.
        low: lower end of the confidence interval at the level `CONFIDENCE`.
        high: upper end of the interval.
        std_error: standard error of `value`.
        p_value: two-sided p-value of this comparison, without correction.
        images: number of images.
        effective_images: number of images with equal influence that would determine `value` as well.
        by_seed: difference for each seed.
        image_variance: variance of `value` by the choice of images, which more seeds do not lower.
        seed_variance: variance between seeds; NaN for one seed. Divided by the number of seeds in that of `value`.
        classes: differences of each class.
    """

    value: float
    low: float
    high: float
    std_error: float
    p_value: float
    images: int
    effective_images: float
    by_seed: dict[int, float]
    image_variance: float
    seed_variance: float
    classes: ClassDifferences

    @property
    def seeds(self) -> int:
        """Number of seeds."""
        return len(self.by_seed)

    @property
    def note(self) -> str:
        """Limits of the interval by few seeds; empty for `MIN_SEEDS` and more."""
        if self.seeds == 1:
            return "one seed: training variance is not included, and no claim of significance is made"
        if self.seeds < MIN_SEEDS:
            return f"{self.seeds} seeds: no claim of significance is made below {MIN_SEEDS}"
        return ""


@dataclass(frozen=True)
class Comparison:
    """A difference as one of the comparisons of a grid with its baseline.

    Attributes:
        difference: the difference to the baseline.
        adjusted_p: p-value after Holm's correction; NaN where no claim is made.
    """

    difference: Difference
    adjusted_p: float

    @property
    def significant(self) -> bool | None:
        """Significance after Holm's correction; None if no claim is made."""
        if np.isnan(self.adjusted_p):
            return None
        return bool(self.adjusted_p < 1 - CONFIDENCE)


def estimate_difference(
    cell: CellCounts, baseline: CellCounts, *, resamples: int = 10_000, seed: int = 0
) -> Difference:
    """Estimate the difference in mIoU of two cells, paired by seed and by image.

    A resample has the same images for both cells and all seeds; seeds that only one cell has are not used. The value is
    the mean difference over seeds; `fcnlab.analysis.intervals` describes its variance and interval. With one seed the
    interval is about these two trained models on other images, as `note` reports.

    Args:
        cell: counts by seed, each [images, num_classes, 3].
        baseline: counts by seed of the same images.
        resamples: number of bootstrap resamples; 10,000 give the standard error to 0.7 %.
        seed: seed of the resampling.

    Raises:
        RunError: the cells have no seed in common, or were evaluated on different images or classes.
    """
    seeds = _common_seeds(cell, baseline)
    _check_labels(cell[seeds[0]], baseline[seeds[0]])
    sample, reference = (BootstrapSample.from_counts(one, seeds, resamples, seed) for one in (cell, baseline))
    miou = sample.mean_over_classes() - reference.mean_over_classes()
    interval, classes = compute_interval(miou), compute_interval(sample - reference)
    labeled = np.count_nonzero(cell[seeds[0]][:, :, 2], axis=0)
    return Difference(
        value=float(interval.value),
        low=float(interval.low),
        high=float(interval.high),
        std_error=float(interval.std_error),
        p_value=float(interval.p_value),
        images=len(miou.counted),
        effective_images=float(interval.effective_images),
        by_seed=dict(zip(seeds, miou.values.tolist(), strict=True)),
        image_variance=float(interval.image_variance),
        seed_variance=float(interval.seed_variance),
        classes=ClassDifferences(classes.value, classes.low, classes.high, classes.p_value, labeled),
    )


def estimate_differences(
    cells: Mapping[str, CellCounts], baseline: str, *, resamples: int = 10_000
) -> dict[str, Difference]:
    """Estimate the difference of every cell to the baseline.

    Args:
        cells: cell label -> counts by seed.
        baseline: label of the baseline.
        resamples: number of bootstrap resamples.

    Returns:
        Cell label -> difference, without the baseline and without cells that have no seed in common with it; none if
        the baseline is not among the cells.

    Raises:
        RunError: cells were evaluated on different images or classes.
    """
    reference = cells.get(baseline, {})
    return {
        label: estimate_difference(cell, reference, resamples=resamples)
        for label, cell in cells.items()
        if label != baseline and cell.keys() & reference.keys()
    }


def apply_holm(differences: Mapping[str, Difference]) -> dict[str, Comparison]:
    """Apply Holm's correction over all differences of at least `MIN_SEEDS` seeds.

    Args:
        differences: cell label -> difference to the baseline.

    Returns:
        Cell label -> comparison.
    """
    p_values = [one.p_value if one.seeds >= MIN_SEEDS else np.nan for one in differences.values()]
    adjusted = adjust_p_values(p_values)
    return {label: Comparison(one, float(p)) for (label, one), p in zip(differences.items(), adjusted, strict=True)}


def _common_seeds(cell: CellCounts, baseline: CellCounts) -> list[int]:
    seeds = sorted(cell.keys() & baseline.keys())
    if not seeds:
        raise RunError(
            f"the cell has seeds {sorted(cell)} and the baseline {sorted(baseline)}: a paired difference needs a "
            "common seed; run the grid with the same seeds"
        )
    return seeds


def _check_labels(cell: Counts, baseline: Counts) -> None:
    """Raise RunError unless both cells were evaluated on the same labels."""
    if np.shape(cell) != np.shape(baseline):
        raise RunError(
            f"the cell's counts have shape {np.shape(cell)} and the baseline's have shape {np.shape(baseline)}: a "
            "paired difference needs the same images and classes, [images, num_classes, 3]; evaluate both on one split"
        )
    different = np.flatnonzero((np.asarray(cell)[..., 2] != np.asarray(baseline)[..., 2]).any(-1))
    if different.size:
        raise RunError(
            f"{different.size} of {len(cell)} images, the first at index {different[0]}, have other labels for the "
            "cell than for the baseline: a paired difference needs the same images in the same order; evaluate both "
            "on one split"
        )
