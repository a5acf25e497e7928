"""Bands and values of the images of a new dataset."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from fcnlab.data.datasets.image_file import (
    RGB,
    SIXTEEN_BITS,
    WIDE_MODES,
    ImageFormat,
    check_bands,
    count_conversions,
    describe_conversion,
    open_header,
    open_image,
    read_values,
)
from fcnlab.data.inspection.diagnosis import read_orientation
from fcnlab.errors import DataError

LARGE_GAP = 3
"""A value is an outlier if its distance from the others is more than this multiple of their range."""

NON_FINITE = "NaN and -inf become 0 (black), inf becomes 255"
"""Conversion of pixels that are not finite."""


@dataclass(frozen=True)
class Bounds:
    """The finite values at both ends of an image, or of several.

    Attributes:
        low: the least value, and the next greater one, which is the same if there is no other.
        high: the next to greatest value, and the greatest.
    """

    low: tuple[float, float]
    high: tuple[float, float]


@dataclass
class ImageContents:
    """Statistics of the bands of images.

    Attributes:
        image_format: conversion of the images, without a range of values.
        conversions: number of images by how their bands are changed.
        wide: number of images of more than 8 bits by mode of Pillow.
        bounds: values at both ends of each of these images that has finite values.
        non_finite: number of pixels that are NaN or infinite by image.
        rotated: EXIF orientation of the images that viewers rotate or mirror.
    """

    image_format: ImageFormat = RGB
    conversions: Counter[str] = field(default_factory=Counter)
    wide: Counter[str] = field(default_factory=Counter)
    bounds: dict[Path, Bounds] = field(default_factory=dict)
    non_finite: dict[Path, int] = field(default_factory=dict)
    rotated: dict[Path, int] = field(default_factory=dict)

    def add(self, path: Path) -> tuple[int, int]:
        """Inspect an image. Its pixels are decoded if it has an alpha band or more than 8 bits.

        Args:
            path: file of the image.

        Returns:
            Its height and width.

        Raises:
            DataError: the file cannot be read, or has several pages.
        """
        with open_header(path) as image:
            width, height = image.size
            orientation = read_orientation(image)
            if orientation != 1:
                self.rotated[path] = orientation
            try:
                check_bands(image, self.image_format)
            except DataError as error:
                raise DataError(f"{path}: {error}") from None
            if image.mode in WIDE_MODES:
                self._add_values(path, open_image(path))
            else:
                conversion = describe_conversion(image, self.image_format)
                self.conversions.update([conversion] if conversion is not None else [])
        return height, width

    def add_all(self, other: ImageContents) -> None:
        """Add the statistics of other images.

        Args:
            other: the statistics.
        """
        self.conversions.update(other.conversions)
        self.wide.update(other.wide)
        self.bounds |= other.bounds
        self.non_finite |= other.non_finite
        self.rotated |= other.rotated

    def _add_values(self, path: Path, image: Image.Image) -> None:
        self.wide[image.mode] += 1
        stored = read_values(image)
        values = stored[np.isfinite(stored)]
        if values.size < stored.size:
            self.non_finite[path] = stored.size - values.size
        if values.size:
            low, high = values.min(), values.max()
            second = values.min(where=values > low, initial=high).item()
            before = values.max(where=values < high, initial=low).item()
            self.bounds[path] = Bounds((low.item(), second), (before, high.item()))

    @property
    def extremes(self) -> tuple[float, float] | None:
        """Least and greatest value of the images of more than 8 bits; None if there are none."""
        if not self.wide:
            return None
        found = [*self.bounds.values()]
        return min((each.low[0] for each in found), default=0), max((each.high[1] for each in found), default=0)

    def find_outliers(self) -> Iterator[tuple[float, tuple[float, float], list[Path]]]:
        """Yield the least and the greatest value if they are far from all others, as values of missing data are.

        Yields:
            The value, the range of the other values, and the images that contain it.
        """
        low = sorted({value for each in self.bounds.values() for value in each.low})
        high = sorted({value for each in self.bounds.values() for value in each.high}, reverse=True)
        if len(low) < 2 or len(high) < 2 or high[1] <= low[1]:
            return
        gap = LARGE_GAP * (high[1] - low[1])
        is_low, is_high = low[1] - low[0] > gap, high[0] - high[1] > gap
        others = (low[is_low], high[is_high])
        if is_low:
            yield low[0], others, [path for path, each in self.bounds.items() if each.low[0] == low[0]]
        if is_high:
            yield high[0], others, [path for path, each in self.bounds.items() if each.high[1] == high[0]]

    @property
    def value_range(self) -> tuple[float, float] | None:
        """The range of values for the registry entry; None if there are no images of more than 8 bits.

        Whole numbers from 0 get the range of the least number of bits that contains them, such as 0..4095; values in
        0..1 get this range, and others that of the values themselves.
        """
        if self.extremes is None:
            return None
        low, high = self.extremes
        if low >= 0 and "F" not in self.wide and high <= SIXTEEN_BITS[1]:
            return (0, max(255, 2 ** int(high).bit_length() - 1))
        if low >= 0 and high <= 1:
            return (0.0, 1.0)
        return (low, high if high > low else low + 1)

    def lines(self) -> list[str]:
        """Return one line per kind of images whose bands or values are changed."""
        found = [count_conversions(count, conversion) for conversion, count in self.conversions.most_common()]
        if self.extremes is not None and self.value_range is not None:
            modes, values = ", ".join(self.wide), "{:g}..{:g}".format(*self.extremes)
            low, high = self.value_range
            text = f"have values of more than 8 bits (mode {modes}), {values}; {low:g}..{high:g} becomes 0..255"
            found.append(count_conversions(self.wide.total(), text))
        return found


def count_non_finite(image: Image.Image) -> int:
    """Return the number of pixels of an image that are NaN or infinite.

    Args:
        image: an image that was opened; it is decoded if it has floating-point values.
    """
    return int(np.count_nonzero(~np.isfinite(read_values(image)))) if image.mode == "F" else 0
