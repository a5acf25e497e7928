"""Bands and values of the images of a new dataset."""

from __future__ import annotations

from collections import Counter
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


@dataclass
class ImageContents:
    """Statistics of the bands of images.

    Attributes:
        image_format: conversion of the images, without a range of values.
        conversions: number of images by how their bands are changed.
        wide: number of images of more than 8 bits by mode of Pillow.
        extremes: least and greatest value of these images.
        rotated: EXIF orientation of the images that viewers rotate or mirror.
    """

    image_format: ImageFormat = RGB
    conversions: Counter[str] = field(default_factory=Counter)
    wide: Counter[str] = field(default_factory=Counter)
    extremes: tuple[float, float] | None = None
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
                self._add_values(open_image(path))
            else:
                conversion = describe_conversion(image, self.image_format)
                self.conversions.update([conversion] if conversion is not None else [])
        return height, width

    def _add_values(self, image: Image.Image) -> None:
        values = read_values(image)
        values = values[np.isfinite(values)]
        low, high = (values.min().item(), values.max().item()) if values.size else (0, 0)
        before = self.extremes or (low, high)
        self.wide[image.mode] += 1
        self.extremes = (min(before[0], low), max(before[1], high))

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
