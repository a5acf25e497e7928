"""Statistics of a dataset's splits: image sizes, class frequencies, colors and class weights."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from fcnlab.constants import IGNORE_INDEX
from fcnlab.data.datasets.base import Dataset, Sample, read_sample
from fcnlab.data.parallel import StartProgress, map_on_all_cores
from fcnlab.metrics.summary import Counts, Floats


@dataclass(frozen=True)
class Spread:
    """Minimum, median and maximum of a length.

    Attributes:
        min: smallest value in pixels.
        median: median in pixels.
        max: largest value in pixels.
    """

    min: int
    median: float
    max: int


@dataclass(frozen=True)
class SplitStats:
    """Counts of one split, and the statistics that follow from them.

    Attributes:
        split: name of the split.
        num_classes: number of classes of the dataset.
        sizes: height and width of each image, int64 [N, 2].
        pixels: number of pixels of each image and label, int64 [N, 256].
        levels: number of pixels of all images with each level of each channel, int64 [channels, 256].
    """

    split: str
    num_classes: int
    sizes: Counts
    pixels: Counts
    levels: Counts

    @property
    def images(self) -> int:
        """The number of images."""
        return len(self.sizes)

    @property
    def height(self) -> Spread:
        """The heights of the images."""
        return _summarize(self.sizes[:, 0])

    @property
    def width(self) -> Spread:
        """The widths of the images."""
        return _summarize(self.sizes[:, 1])

    @property
    def distinct_sizes(self) -> int:
        """The number of different pairs of height and width."""
        return len(np.unique(self.sizes, axis=0))

    @cached_property
    def share(self) -> Floats:
        """The fraction of each class among all pixels, including ignored ones, [num_classes]."""
        return self.pixels[:, : self.num_classes].sum(0) / max(1, self.pixels.sum())

    @property
    def ignored(self) -> float:
        """The fraction of ignored pixels."""
        return float(self.pixels[:, IGNORE_INDEX].sum() / max(1, self.pixels.sum()))

    @cached_property
    def image_counts(self) -> Counts:
        """The number of images in which each class occurs, [num_classes]."""
        return np.asarray((self.pixels[:, : self.num_classes] > 0).sum(0), dtype=np.int64)

    @property
    def mean(self) -> Floats:
        """The mean of each channel over all pixels, 0..1, [channels]."""
        return self.levels @ np.arange(256) / max(1, self.levels[0].sum()) / 255

    @property
    def std(self) -> Floats:
        """The standard deviation of each channel over all pixels, 0..1, [channels]."""
        squares = (np.arange(256)[None, :] / 255 - self.mean[:, None]) ** 2
        return np.sqrt((self.levels * squares).sum(1) / max(1, self.levels[0].sum()))

    @property
    def weights(self) -> Floats:
        """The class weights of `class_weights: median_frequency`, [num_classes]."""
        return median_frequency_weights(self.pixels[:, : self.num_classes])


def compute_split_stats(
    dataset: Dataset, splits: Iterable[str], progress: StartProgress | None = None
) -> list[SplitStats]:
    """Compute the statistics of splits; each sample is decoded once, on all cores.

    Args:
        dataset: the dataset.
        splits: names of the splits.
        progress: called when a split starts.

    Raises:
        DataError: a split is missing, or a sample cannot be decoded.
    """
    return [_compute_split(dataset, name, progress) for name in splits]


def _compute_split(dataset: Dataset, name: str, progress: StartProgress | None) -> SplitStats:
    split, num_classes = dataset.split(name), len(dataset.classes)
    advance = progress(name, len(split)) if progress is not None else None
    sizes, pixels = np.zeros((len(split), 2), np.int64), np.zeros((len(split), 256), np.int64)
    levels = np.zeros((split.channels, 256), np.int64)
    for index, (size, labels, colors) in enumerate(
        map_on_all_cores(lambda i: _count_sample(read_sample(split, i, num_classes)), len(split), advance)
    ):
        sizes[index], pixels[index] = size, labels
        levels += colors
    return SplitStats(name, num_classes, sizes, pixels, levels)


def _count_sample(sample: Sample) -> tuple[tuple[int, int], Counts, Counts]:
    height, width = sample.label.shape
    planes = np.moveaxis(sample.image, 2, 0)
    colors = [np.bincount(plane.ravel(), minlength=256) for plane in planes]
    return (height, width), np.bincount(sample.label.ravel(), minlength=256), np.stack(colors)


def _summarize(lengths: Counts) -> Spread:
    if not len(lengths):
        return Spread(0, 0.0, 0)
    return Spread(int(lengths.min()), float(np.median(lengths)), int(lengths.max()))


def median_frequency_weights(pixels: Counts) -> Floats:
    """Compute class weights by median frequency balancing (Eigen and Fergus, ICCV 2015, section 4.3).

    The frequency of a class is its share of the pixels that are not ignored, over the images in which it occurs. Its
    weight is the median of all frequencies divided by its own; a class that does not occur has the weight 1.

    Args:
        pixels: number of pixels of each image and class, [N, num_classes].

    Returns:
        Weights, float64 [num_classes].
    """
    class_pixels = pixels.sum(0)
    total = ((pixels > 0) * pixels.sum(1, keepdims=True)).sum(0)
    weights = np.ones(pixels.shape[1])
    present = class_pixels > 0
    if present.any():
        frequency = class_pixels[present] / total[present]
        weights[present] = np.median(frequency) / frequency
    return weights
