"""What a dataset's splits hold, in figures: sizes, how frequent the classes are, colours, class weights."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from fcnlab.constants import IGNORE_INDEX
from fcnlab.data.datasets.base import Dataset, Sample
from fcnlab.data.parallel import StartProgress, map_on_all_cores

Counts = NDArray[np.int64]
Figures = NDArray[np.float64]


@dataclass(frozen=True)
class Spread:
    """The smallest, the median and the largest of a length in pixels."""

    min: int
    median: float
    max: int


@dataclass(frozen=True)
class SplitStats:
    """What one split holds, as counts from which every figure follows.

    Attributes:
        split: its name.
        classes: how many classes the dataset has.
        sizes: height and width of each image, [N, 2].
        pixels: pixels by image and label, [N, 256].
        levels: how many pixels of all images have each level in red, green and blue, [3, 256].
    """

    split: str
    classes: int
    sizes: Counts
    pixels: Counts
    levels: Counts

    @property
    def images(self) -> int:
        """How many images the split has."""
        return len(self.sizes)

    @property
    def height(self) -> Spread:
        """The images' heights."""
        return _spread(self.sizes[:, 0])

    @property
    def width(self) -> Spread:
        """The images' widths."""
        return _spread(self.sizes[:, 1])

    @property
    def distinct_sizes(self) -> int:
        """How many different pairs of height and width there are."""
        return len(np.unique(self.sizes, axis=0))

    @cached_property
    def share(self) -> Figures:
        """Each class's part of all pixels, the ignored ones among them, 0..1, [classes]."""
        return self.pixels[:, : self.classes].sum(0) / max(1, self.pixels.sum())

    @property
    def ignored(self) -> float:
        """The ignored pixels' part of all, 0..1."""
        return float(self.pixels[:, IGNORE_INDEX].sum() / max(1, self.pixels.sum()))

    @cached_property
    def image_counts(self) -> Counts:
        """In how many images each class is, [classes]."""
        return np.asarray((self.pixels[:, : self.classes] > 0).sum(0), dtype=np.int64)

    @property
    def mean(self) -> Figures:
        """Mean level of red, green and blue over all pixels, 0..1, [3]."""
        return self.levels @ np.arange(256) / max(1, self.levels[0].sum()) / 255

    @property
    def std(self) -> Figures:
        """Standard deviation of red, green and blue over all pixels, 0..1, [3]."""
        away = (np.arange(256)[None, :] / 255 - self.mean[:, None]) ** 2
        return np.sqrt((self.levels * away).sum(1) / max(1, self.levels[0].sum()))

    @property
    def weights(self) -> Figures:
        """Median-frequency weights, [classes]: what `class_weights: median_frequency` trains with."""
        return median_frequency_weights(self.pixels[:, : self.classes])


def compute_split_stats(
    dataset: Dataset, splits: Iterable[str], progress: StartProgress | None = None
) -> list[SplitStats]:
    """Read each split once, on all cores.

    Raises:
        DataError: there is no such split, or a sample does not decode.
    """
    return [_of(dataset, name, progress) for name in splits]


def _of(dataset: Dataset, name: str, progress: StartProgress | None) -> SplitStats:
    split = dataset.split(name)
    advance = progress(name, len(split)) if progress is not None else None
    sizes, pixels = np.zeros((len(split), 2), np.int64), np.zeros((len(split), 256), np.int64)
    levels = np.zeros((3, 256), np.int64)
    for index, (size, labels, colours) in enumerate(map_on_all_cores(lambda i: _count(split[i]), len(split), advance)):
        sizes[index], pixels[index] = size, labels
        levels += colours
    return SplitStats(name, len(dataset.classes), sizes, pixels, levels)


def _count(sample: Sample) -> tuple[tuple[int, int], Counts, Counts]:
    height, width = sample.label.shape
    colours = [np.bincount(sample.image[..., channel].ravel(), minlength=256) for channel in range(3)]
    return (height, width), np.bincount(sample.label.ravel(), minlength=256), np.stack(colours)


def _spread(lengths: Counts) -> Spread:
    if not len(lengths):
        return Spread(0, 0.0, 0)
    return Spread(int(lengths.min()), float(np.median(lengths)), int(lengths.max()))


def median_frequency_weights(pixels: Counts) -> Figures:
    """Class weights [C] from pixels by image and class [N, C]: the median of the classes' frequencies over each one's.

    A class's frequency is its pixels' share of the counted pixels of the images in which it is. Classes that are
    nowhere weigh 1. Eigen and Fergus, ICCV 2015, section 4.3.
    """
    own = pixels.sum(0)
    around = ((pixels > 0) * pixels.sum(1, keepdims=True)).sum(0)
    weights = np.ones(pixels.shape[1])
    there = own > 0
    if there.any():
        frequency = own[there] / around[there]
        weights[there] = np.median(frequency) / frequency
    return weights
