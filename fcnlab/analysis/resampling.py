"""The bootstrap over images: IoU per class of a cell's trials, as observed and on resampled images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fcnlab.errors import RunError

if TYPE_CHECKING:  # at run time it would import torch
    from fcnlab.metrics.confusion import Counts

CellCounts: TypeAlias = "Mapping[int, Counts]"
"""Seed -> counts of its trial, int64 [images, classes, 3]; images in one order for all."""

Floats = NDArray[np.float64]

_CHUNK = 2**20  # weights held at a time, 8 MiB


@dataclass(frozen=True)
class Sample:
    """Figures of a cell's trials and what the choice of images does to them; [...] is [classes], or [] for mIoU."""

    values: Floats
    """[seeds, ...]"""
    resampled: Floats
    """[resamples, seeds, ...]; the same images in one row."""
    influence: Floats
    """[seeds, images, ...]: by how much each image moves the figure, to first order."""
    counted: NDArray[np.bool_]
    """[images, ...]: whether the image counts for the figure."""

    @staticmethod
    def of(cell: CellCounts, seeds: Sequence[int], resamples: int, seed: int) -> Sample:
        """IoU per class of the trials with these seeds. Raises RunError where they were scored on different things."""
        counts = stacked(cell, seeds)
        return Sample(
            values=class_iou(counts.sum(1)),
            resampled=resampled_class_iou(counts, resamples, seed),
            influence=influence(counts),
            counted=np.asarray((counts[..., 1:] > 0).any(axis=(0, 3))),
        )

    def miou(self) -> Sample:
        """The same of the mean over classes."""
        return Sample(
            over_classes(self.values),
            over_classes(self.resampled),
            over_classes(self.influence),
            np.ones(len(self.counted), dtype=np.bool_),
        )

    def less(self, other: Sample) -> Sample:
        """The differences, seed by seed and image by image."""
        return Sample(
            self.values - other.values,
            self.resampled - other.resampled,
            self.influence - other.influence,
            self.counted | other.counted,
        )


def stacked(cell: CellCounts, seeds: Sequence[int]) -> Counts:
    """The counts of these seeds as one array, int64 [seeds, images, classes, 3].

    Raises RunError where a trial's counts have another shape than the first one's.
    """
    shapes = {seed: np.shape(cell[seed]) for seed in seeds}
    first = shapes[seeds[0]]
    for seed, shape in shapes.items():
        if len(shape) != 3 or shape[2] != 3 or shape != first:
            raise RunError(
                f"counts of seed {seed} are of shape {shape}, those of seed {seeds[0]} of {first}: "
                "trials that are compared must be scored on the same images and classes, [images, classes, 3]; "
                "score them again on one split"
            )
    return np.stack([np.asarray(cell[seed], dtype=np.int64) for seed in seeds])


def class_iou(totals: NDArray[np.int64] | Floats) -> Floats:
    """IoU per class of summed counts [..., classes, 3] -> [..., classes]; nan for a class without a union."""
    hit, predicted, target = np.moveaxis(np.asarray(totals, dtype=np.float64), -1, 0)
    return _ratio(hit, predicted + target - hit)


def over_classes(figures: Floats) -> Floats:
    """The mean over the classes that are not nan, which of IoU is mIoU: [..., classes] -> [...]; nan where all are."""
    there = ~np.isnan(figures)
    return _ratio(np.where(there, figures, 0.0).sum(-1), there.sum(-1).astype(np.float64))


def influence(counts: Counts) -> Floats:
    """How much each image moves a class's IoU: counts [trials, images, classes, 3] -> [trials, images, classes].

    To first order: the empirical influence values of a ratio of sums (Davison and Hinkley 1997, section 2.7) divided
    by the number of images, (hit_i - IoU union_i) / union. They sum to zero over images; nan for a class without a
    union.
    """
    hit = counts[..., 0].astype(np.float64)
    union = counts[..., 1] + counts[..., 2] - hit
    whole = union.sum(1, keepdims=True)
    residual = hit - _ratio(hit.sum(1, keepdims=True), whole) * union
    return _ratio(residual, np.broadcast_to(whole, residual.shape))


def resampled_class_iou(counts: Counts, resamples: int, seed: int) -> Floats:
    """IoU per class on resampled images: counts [trials, images, classes, 3] -> [resamples, trials, classes].

    A resample draws as many images as there are, with replacement, the same ones for every trial; the draws depend on
    the number of images, `resamples` and `seed` alone, so that calls for two cells are paired. How often each image
    was drawn times its counts is a matrix product. It is in double precision, in which sums of pixels are exact:
    neither the order of summation nor the number of threads changes a figure.
    """
    trials, images, classes, _ = counts.shape
    hit = counts[..., 0]
    union = counts[..., 1] + counts[..., 2] - hit
    columns = np.stack((hit, union)).transpose(2, 0, 1, 3).reshape(images, -1).astype(np.float64)
    iou = np.empty((resamples, trials, classes))
    start = 0
    for weights in _weights(images, resamples, seed):
        hits, unions = (weights @ columns).reshape(len(weights), 2, trials, classes).swapaxes(0, 1)
        iou[start : start + len(weights)] = _ratio(hits, unions)
        start += len(weights)
    return iou


def _weights(images: int, resamples: int, seed: int) -> Iterator[Floats]:
    """How often each image is drawn in each resample, [some resamples, images] at a time."""
    random = np.random.default_rng(seed)
    rows = max(1, _CHUNK // images)
    for start in range(0, resamples, rows):
        count = min(rows, resamples - start)
        drawn = random.integers(0, images, size=(count, images))
        drawn += np.arange(count)[:, None] * images
        yield np.bincount(drawn.ravel(), minlength=count * images).reshape(count, images).astype(np.float64)


def _ratio(part: Floats, whole: Floats) -> Floats:
    """Part / whole, and nan where there is nothing."""
    return np.divide(part, whole, out=np.full_like(part, np.nan), where=whole > 0)
