"""From the values of a mask to labels 0..C-1, and 255 where a pixel does not count."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fcnlab.data.datasets.base import IGNORE, Pixels
from fcnlab.errors import DataError


class Labels(ABC):
    """What the values of a dataset's masks mean."""

    @abstractmethod
    def decode(self, mask: Image.Image, file: Path) -> Pixels:
        """The labels [H, W] of a mask [H, W]; `file` is named in errors.

        Raises:
            DataError: a mode that cannot hold such values, or a value that means nothing.
        """


class Ids(Labels):
    """Numbers in one 8-bit channel; of a palette image the index counts, not the colour."""

    def __init__(self, classes: Sequence[Iterable[int]], ignored: Iterable[int] = ()) -> None:
        """`classes` are the numbers that mean each label. 255 is ignored where it is no class."""
        self._table = np.full(256, -1, dtype=np.int16)
        self._table[[IGNORE, *ignored]] = IGNORE
        for label, numbers in enumerate(classes):
            self._table[list(numbers)] = label

    def decode(self, mask: Image.Image, file: Path) -> Pixels:
        if mask.mode not in ("L", "P"):
            raise DataError(
                f"{file}: the mask has mode {mask.mode}; labels are expected as one 8-bit channel of class "
                "numbers (mode L or P)"
            )
        raw = np.asarray(mask)
        label = self._table[raw]
        if label.min(initial=0) < 0:
            strange = int(raw[label < 0][0])
            raise DataError(
                f"{file}: label {strange} stands in {int((raw == strange).sum())} pixels and is neither a class "
                f"({self._numbers(classes=True)}) nor ignored ({self._numbers(classes=False)})"
            )
        return label.astype(np.uint8)

    def _numbers(self, *, classes: bool) -> str:
        known = (self._table >= 0) & (self._table < IGNORE) if classes else self._table == IGNORE
        return runs(np.flatnonzero(known))


class Colours(Labels):
    """Colours of an RGB image, as numbers 0xrrggbb."""

    def __init__(self, classes: Sequence[Iterable[int]], ignored: Iterable[int] = ()) -> None:
        """`classes` are the colours that mean each label."""
        means = {colour: label for label, colours in enumerate(classes) for colour in colours}
        means |= dict.fromkeys(ignored, IGNORE)
        self._colours = np.array(sorted(means), dtype=np.int32)
        self._labels = np.array([means[colour] for colour in sorted(means)], dtype=np.uint8)

    def decode(self, mask: Image.Image, file: Path) -> Pixels:
        if mask.mode != "RGB":
            raise DataError(
                f"{file}: the mask has mode {mask.mode}; its classes are given as colours, and colours are expected "
                "as an RGB image"
            )
        raw = packed(np.asarray(mask))
        place = np.searchsorted(self._colours, raw).clip(max=len(self._colours) - 1)
        strange = raw[self._colours[place] != raw]
        if strange.size:
            raise DataError(
                f"{file}: the colour '#{strange[0]:06x}' stands in {int((strange == strange[0]).sum())} pixels and is "
                "neither a class nor ignored"
            )
        return self._labels[place]


def packed(rgb: Pixels) -> NDArray[np.int32]:
    """Colours [..., 3] as numbers 0xrrggbb [...]."""
    wide = rgb.astype(np.int32)
    return np.asarray(wide[..., 0] << 16 | wide[..., 1] << 8 | wide[..., 2], dtype=np.int32)


def runs(numbers: Iterable[int]) -> str:
    """Ascending numbers in words, such as `0..6, 9, 255`."""
    grouped = (list(group) for _, group in groupby(enumerate(numbers), lambda pair: int(pair[1]) - pair[0]))
    ends = ((int(group[0][1]), int(group[-1][1])) for group in grouped)
    return ", ".join(str(a) if a == b else f"{a}..{b}" for a, b in ends)
