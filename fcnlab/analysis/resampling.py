"""Bootstrap over images: the IoU of each class and the mIoU of a cell's trials, observed and on resampled images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from fcnlab.errors import RunError
from fcnlab.metrics.summary import Counts, Floats, compute_class_iou, divide, mean_over_classes

CellCounts: TypeAlias = Mapping[int, Counts]
"""Seed -> counts of its trial, int64 [images, num_classes, 3], with the same images in the same order for all seeds."""

_CHUNK = 2**20  # weights that are held at once, 8 MiB


@dataclass(frozen=True)
class BootstrapSample:
    """A metric of a cell's trials, observed and on resampled images.

    The trailing shape [...] is [num_classes] for IoU and [] for mIoU.

    Attributes:
        values: observed values, [seeds, ...].
        resampled: values on resampled images, [resamples, seeds, ...]; all seeds of a resample have the same images.
        influence: first-order change of the metric by each image, [seeds, images, ...].
        counted: whether an image contributes to the metric, [images, ...].
    """

    values: Floats
    resampled: Floats
    influence: Floats
    counted: NDArray[np.bool_]

    @staticmethod
    def from_counts(cell: CellCounts, seeds: Sequence[int], resamples: int, seed: int) -> BootstrapSample:
        """Compute the IoU of each class for the trials of a cell.

        Args:
            cell: counts by seed.
            seeds: the seeds to use.
            resamples: number of bootstrap resamples.
            seed: seed of the resampling.

        Raises:
            RunError: the counts of the seeds have different shapes.
        """
        counts = stack_counts(cell, seeds)
        return BootstrapSample(
            values=compute_class_iou(counts.sum(1)),
            resampled=resample_class_iou(counts, resamples, seed),
            influence=compute_influence(counts),
            counted=np.asarray((counts[..., 1:] > 0).any(axis=(0, 3))),
        )

    def mean_over_classes(self) -> BootstrapSample:
        """Return the sample of the mIoU from that of the IoU of each class."""
        return BootstrapSample(
            mean_over_classes(self.values),
            mean_over_classes(self.resampled),
            mean_over_classes(self.influence),
            np.asarray(self.counted.any(-1)),
        )

    @staticmethod
    def mean(samples: Sequence[BootstrapSample]) -> BootstrapSample:
        """Return the sample of the mean of several metrics of the same seeds and images.

        Args:
            samples: at least one sample, with the same resamples.
        """
        return BootstrapSample(
            np.mean([one.values for one in samples], axis=0),
            np.mean([one.resampled for one in samples], axis=0),
            np.mean([one.influence for one in samples], axis=0),
            np.asarray(np.any([one.counted for one in samples], axis=0)),
        )

    def __sub__(self, other: BootstrapSample) -> BootstrapSample:
        """Return the sample of the difference, paired by seed and image."""
        return BootstrapSample(
            self.values - other.values,
            self.resampled - other.resampled,
            self.influence - other.influence,
            self.counted | other.counted,
        )


def stack_counts(cell: CellCounts, seeds: Sequence[int]) -> Counts:
    """Stack the counts of a cell's trials.

    Args:
        cell: counts by seed, each [images, num_classes, 3].
        seeds: the seeds to stack, in this order.

    Returns:
        int64 [seeds, images, num_classes, 3].

    Raises:
        RunError: the counts of a seed have another shape than those of the first one.
    """
    shapes = {seed: np.shape(cell[seed]) for seed in seeds}
    first = shapes[seeds[0]]
    for seed, shape in shapes.items():
        if len(shape) != 3 or shape[2] != 3 or shape != first:
            raise RunError(
                f"counts of seed {seed} have shape {shape}, those of seed {seeds[0]} have shape {first}: trials can be "
                "compared only if they were evaluated on the same images and classes, [images, num_classes, 3]; "
                "evaluate them again on one split"
            )
    return np.stack([np.asarray(cell[seed], dtype=np.int64) for seed in seeds])


def compute_influence(counts: Counts) -> Floats:
    """Compute the first-order change of each class's IoU by each image.

    These are the empirical influence values of a ratio of sums (Davison and Hinkley, Bootstrap Methods and their
    Application, 1997, section 2.7) divided by the number of images, (hit_i - IoU * union_i) / union. They sum to zero
    over the images.

    Args:
        counts: [trials, images, num_classes, 3].

    Returns:
        [trials, images, num_classes]; NaN for a class without a labeled pixel.
    """
    hit = counts[..., 0].astype(np.float64)
    union = counts[..., 1] + counts[..., 2] - hit
    total = np.where(counts[..., 2].any(1, keepdims=True), union.sum(1, keepdims=True), 0.0)
    residual = hit - divide(hit.sum(1, keepdims=True), total) * union
    return divide(residual, np.broadcast_to(total, residual.shape))


def resample_class_iou(counts: Counts, resamples: int, seed: int) -> Floats:
    """Compute the IoU of each class on bootstrap resamples of the images.

    A resample draws the number of images with replacement, and uses the same images for every trial. The draws depend
    only on the number of images, `resamples` and `seed`, so calls for two cells are paired. The matrix product of draw
    frequencies and counts is in double precision, in which sums of pixels are exact: neither the order of summation
    nor the number of threads changes a result.

    Args:
        counts: [trials, images, num_classes, 3].
        resamples: number of resamples.
        seed: seed of the draws.

    Returns:
        [resamples, trials, num_classes]; NaN where a class has no labeled pixel in a resample.
    """
    trials, images, num_classes, _ = counts.shape
    columns = np.moveaxis(counts, 1, 0).reshape(images, -1).astype(np.float64)
    iou = np.empty((resamples, trials, num_classes))
    start = 0
    for weights in _draw_weights(images, resamples, seed):
        iou[start : start + len(weights)] = compute_class_iou((weights @ columns).reshape(-1, trials, num_classes, 3))
        start += len(weights)
    return iou


def _draw_weights(images: int, resamples: int, seed: int) -> Iterator[Floats]:
    """Yield how often each image is sampled in each resample, as chunks [resamples, images]."""
    random = np.random.default_rng(seed)
    rows = max(1, _CHUNK // images)
    for start in range(0, resamples, rows):
        count = min(rows, resamples - start)
        sampled = random.integers(0, images, size=(count, images))
        sampled += np.arange(count)[:, None] * images
        yield np.bincount(sampled.ravel(), minlength=count * images).reshape(count, images).astype(np.float64)
