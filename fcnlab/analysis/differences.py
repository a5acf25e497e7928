"""Differences of mIoU and of the IoU of each class between cells and the baseline, with intervals and tests."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from fcnlab.analysis.holm import adjust_p_values, is_significant
from fcnlab.analysis.intervals import MIN_SEEDS, Interval, compute_fold_interval, compute_interval
from fcnlab.analysis.resampling import BootstrapSample, CellCounts
from fcnlab.config.dataset import CrossValidation
from fcnlab.errors import RunError
from fcnlab.metrics.summary import Counts, Floats, compute_class_iou, mean_over_classes


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
        effective_images: number of images with equal influence that would determine `value` as well; NaN in a
            cross-validation.
        by_seed: difference for each seed.
        image_variance: variance of `value` by the choice of images, which more seeds do not lower; NaN in a
            cross-validation.
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
        return is_significant(self.adjusted_p)


def estimate_difference(
    cell: CellCounts,
    baseline: CellCounts,
    *,
    folds: CrossValidation | None = None,
    resamples: int = 10_000,
    seed: int = 0,
) -> Difference:
    """Estimate the difference in mIoU of two cells, paired by seed and by image.

    A resample has the same images for both cells and all seeds; seeds that only one cell has are not used. The value is
    the mean difference over seeds; `fcnlab.analysis.intervals` describes its variance and interval. With one seed the
    interval is about these two trained models on other images, as `note` reports.

    In a cross-validation, each seed has the images of the fold that it holds out, and images are resampled only if
    there is one seed.

    Args:
        cell: counts by seed, each [images, num_classes, 3].
        baseline: counts by seed of the same images.
        folds: the cross-validation, whose folds have other images; None if all seeds have the same images.
        resamples: number of bootstrap resamples; 10,000 give the standard error to 0.7 %.
        seed: seed of the resampling.

    Raises:
        RunError: the cells have no seed in common, or were evaluated on different images or classes.
    """

    def reference(seeds: tuple[int, ...]) -> BootstrapSample:
        return BootstrapSample.from_counts(baseline, seeds, resamples, seed)

    return _estimate(cell, baseline, reference, folds, resamples, seed)


def _estimate(
    cell: CellCounts,
    baseline: CellCounts,
    reference: Callable[[tuple[int, ...]], BootstrapSample],
    folds: CrossValidation | None,
    resamples: int,
    seed: int,
) -> Difference:
    """Estimate a difference, given a function that resamples some seeds of the baseline with the same draws."""
    seeds = _common_seeds(cell, baseline)
    if folds is not None and len(seeds) > 1:
        return _estimate_over_folds(cell, baseline, seeds, folds)
    check_labels(cell[seeds[0]], baseline[seeds[0]])
    sample, other = BootstrapSample.from_counts(cell, seeds, resamples, seed), reference(tuple(seeds))
    miou = sample.mean_over_classes() - other.mean_over_classes()
    return _describe(
        dict(zip(seeds, miou.values.tolist(), strict=True)),
        compute_interval(miou),
        compute_interval(sample - other),
        len(miou.counted),
        count_class_images(cell, seeds[:1]),
    )


def _estimate_over_folds(
    cell: CellCounts, baseline: CellCounts, seeds: list[int], folds: CrossValidation
) -> Difference:
    """Estimate a difference from the values of each seed on the images of its fold."""
    for seed in seeds:
        check_labels(cell[seed], baseline[seed])
    iou, reference = (np.stack([compute_class_iou(one[seed].sum(0)) for seed in seeds]) for one in (cell, baseline))
    miou = mean_over_classes(iou) - mean_over_classes(reference)
    distinct = select_folds(seeds, folds)
    return _describe(
        dict(zip(seeds, miou.tolist(), strict=True)),
        compute_fold_interval(miou, folds.test_ratio),
        compute_fold_interval(iou - reference, folds.test_ratio),
        sum(len(cell[seed]) for seed in distinct),
        count_class_images(cell, distinct),
    )


def _describe(
    by_seed: dict[int, float], miou: Interval, classes: Interval, images: int, class_images: NDArray[np.int64]
) -> Difference:
    return Difference(
        value=float(miou.value),
        low=float(miou.low),
        high=float(miou.high),
        std_error=float(miou.std_error),
        p_value=float(miou.p_value),
        images=images,
        effective_images=float(miou.effective_images),
        by_seed=by_seed,
        image_variance=float(miou.image_variance),
        seed_variance=float(miou.seed_variance),
        classes=ClassDifferences(classes.value, classes.low, classes.high, classes.p_value, class_images),
    )


def select_folds(seeds: Iterable[int], folds: CrossValidation | None) -> list[int]:
    """Select seeds whose images are all images of the others: the first of each fold, or the first of all.

    Args:
        seeds: seeds of trials.
        folds: the cross-validation; None if all seeds have the same images.

    Returns:
        The seeds, in ascending order.
    """
    number = folds.folds if folds is not None else 1
    return sorted({seed % number: seed for seed in sorted(seeds, reverse=True)}.values())


def count_class_images(cell: CellCounts, seeds: Iterable[int]) -> NDArray[np.int64]:
    """Count the images in which each class is labeled.

    Args:
        cell: counts by seed, each [images, num_classes, 3].
        seeds: seeds with different images.

    Returns:
        [num_classes].
    """
    return np.asarray(sum(np.count_nonzero(cell[seed][:, :, 2], axis=0) for seed in seeds))


def estimate_differences(
    cells: Mapping[str, CellCounts],
    baseline: str,
    *,
    folds: CrossValidation | None = None,
    resamples: int = 10_000,
    seed: int = 0,
) -> dict[str, Difference]:
    """Estimate the difference of every cell to the baseline.

    The baseline is resampled again only where its seeds in common with a cell differ from those with the cell before.

    Args:
        cells: cell label -> counts by seed.
        baseline: label of the baseline.
        folds: see `estimate_difference`.
        resamples: number of bootstrap resamples.
        seed: seed of the resampling.

    Returns:
        Cell label -> difference, without the baseline and without cells that have no seed in common with it; none if
        the baseline is not among the cells.

    Raises:
        RunError: cells were evaluated on different images or classes.
    """
    counts = cells.get(baseline, {})

    @lru_cache(maxsize=1)  # a sample of many classes is large
    def reference(seeds: tuple[int, ...]) -> BootstrapSample:
        return BootstrapSample.from_counts(counts, seeds, resamples, seed)

    return {
        label: _estimate(cell, counts, reference, folds, resamples, seed)
        for label, cell in cells.items()
        if label != baseline and cell.keys() & counts.keys()
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


def check_labels(cell: Counts, baseline: Counts) -> None:
    """Check that two trials were evaluated on the same labels.

    Args:
        cell: counts of a trial.
        baseline: counts of another trial.

    Raises:
        RunError: the images or their labels differ.
    """
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
