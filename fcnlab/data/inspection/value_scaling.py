"""Scaling of images of more than 8 bits that are predicted: their values, and the range that becomes 0..255."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from fcnlab.data.datasets.image_file import (
    WIDE_MODES,
    ImageFormat,
    count_conversions,
    describe_depth,
    find_range,
    read_values,
)


@dataclass
class ValueScaling:
    """Values of images of more than 8 bits, by kind of file.

    Attributes:
        image_format: conversion of the images.
        remedy: instruction that sets another range, such as `pass --value-range 0 {high}`.
        bands: number of images by the description of their bands, if these have 16 bits.
        kinds: number of images of one band by depth and range.
        greatest: greatest value of each of these kinds.
    """

    image_format: ImageFormat
    remedy: str
    bands: Counter[str] = field(default_factory=Counter)
    kinds: Counter[tuple[str, float, float]] = field(default_factory=Counter)
    greatest: dict[tuple[str, float, float], float] = field(default_factory=dict)

    def add(self, image: Image.Image) -> None:
        """Count an image if it has more than 8 bits.

        Args:
            image: the image; its pixels are decoded if it has one band of more than 8 bits.
        """
        if image.mode not in WIDE_MODES:
            if (depth := describe_depth(image, self.image_format)) is not None:
                self.bands[depth] += 1
            return
        bounds = find_range(image, self.image_format)
        if bounds is None:
            return  # it has no range of values, which is an error of its prediction
        kind = (_name_depth(image), *bounds)
        values = read_values(image)
        finite = values[np.isfinite(values)]
        self.kinds[kind] += 1
        self.greatest[kind] = max(self.greatest.get(kind, 0), float(finite.max()) if finite.size else 0)

    def lines(self) -> list[str]:
        """Return one line per kind of file."""
        found = [count_conversions(count, depth) for depth, count in self.bands.items()]
        for kind, count in self.kinds.items():
            depth, low, high = kind
            text = f"have {depth} and values up to {self.greatest[kind]:g}, which are scaled as {low:g}..{high:g}"
            found.append(count_conversions(count, text) + self._suggest_range(self.greatest[kind], high))
        return found

    def _suggest_range(self, greatest: float, high: float) -> str:
        """Return the end of a line about another range if the values use less than half of the default one."""
        least = max(255, 2 ** int(greatest).bit_length() - 1)
        if self.image_format.value_range is not None or least >= high:
            return ""
        return f"; if their range is 0..{least}, {self.remedy.format(high=least)}"


def _name_depth(image: Image.Image) -> str:
    if image.mode == "F":
        return "floating-point numbers"
    return "16 bits" if image.mode != "I" or image.format in ("PNG", "PPM") else "32 bits"
