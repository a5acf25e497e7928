"""Decoders of masks: from the values of a mask to labels 0..C-1, and 255 for ignored pixels."""

from __future__ import annotations

import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fcnlab.config.mask_values import MAX_NUMBER
from fcnlab.constants import IGNORE_INDEX
from fcnlab.data.datasets.image_file import open_header, read_raw_mode
from fcnlab.data.datasets.pgm import read_maxval, restore_values
from fcnlab.errors import DataError

NUMBER_MODES = ("L", "P", "I;16", "I;16L", "I;16B", "I;16N", "I")
"""Pillow's modes of one channel of integers."""

EXPECTED_NUMBERS = "expected class numbers: one channel of 8 or 16 bits (mode L, P or I;16)"
"""End of the error about another mode."""

SHOWN = 6
"""Maximum number of undefined values that an error lists."""

_GRAY_STEPS = {"L;2": 85, "L;4": 17}
"""Distance of two gray levels of 2 and 4 bits after Pillow has scaled them to 0..255."""


class LossyMaskError(DataError):
    """A mask is stored with a compression that changes its values."""


class MaskModeError(DataError):
    """A mask has a mode of Pillow whose pixels are neither numbers nor the colors of its classes."""


class TransparentMaskError(DataError):
    """A mask has transparent pixels, whose class is unknown."""


def open_mask(path: Path) -> Image.Image:
    """Open and decode a mask. Gray levels are the stored numbers, also those of 2 and 4 bits and of any PGM file.

    Args:
        path: file of the mask.

    Raises:
        LossyMaskError: the content of the file is JPEG or lossy WebP, whatever its extension is.
        DataError: the file is missing, is not a valid image, has several pages, or has numbers of 16 bits with an
            alpha channel.
    """
    with open_header(path) as mask:
        form = _find_lossy_form(mask, path)
        if form is not None:
            raise LossyMaskError(f"{path}: the mask is a {form}, which changes the values of pixels; save masks as PNG")
        raw_mode = read_raw_mode(mask)
        if raw_mode.startswith("LA;16"):
            raise DataError(
                f"{path}: the mask has numbers of 16 bits with an alpha channel, of which Pillow reads only the upper "
                "8 bits; save it without the alpha channel"
            )
        step, maxval = _GRAY_STEPS.get(raw_mode, 1), _read_pgm_maxval(mask, path)
        mask.load()
        if maxval is not None:
            return Image.fromarray(restore_values(mask, maxval))
        return mask if step == 1 else Image.fromarray(np.asarray(mask) // np.uint8(step))


def _read_pgm_maxval(mask: Image.Image, path: Path) -> int | None:
    """Return the maximum value of an open PGM file if Pillow scales its gray levels; None for other images."""
    maxval = read_maxval(mask) if mask.mode != "RGB" else None
    if maxval is None:
        return None
    decoder, _, offset, _ = mask.tile[0]  # type: ignore[attr-defined]
    if decoder == "ppm":  # in a file with binary numbers, Pillow replaces those above the maximum by the maximum
        kind = ">u1" if maxval < 256 else ">u2"
        largest = np.fromfile(path, kind, mask.width * mask.height, offset=offset).max(initial=0)
        if largest > maxval:
            raise DataError(
                f"{path}: contains the value {largest}, but its header gives the maximum {maxval}; save the mask as PNG"
            )
    return maxval


def _find_lossy_form(mask: Image.Image, path: Path) -> str | None:
    """Return the name of the compression of an open mask if it is lossy."""
    if mask.format in ("JPEG", "MPO"):
        return "JPEG"
    if mask.format == "TIFF" and mask.info.get("compression") in ("jpeg", "tiff_jpeg"):
        return "TIFF with JPEG compression"
    return "lossy WebP" if mask.format == "WEBP" and _is_lossy_webp(path) else None


def _is_lossy_webp(path: Path) -> bool:
    """Return whether a WebP file of one picture is lossy by its first chunk of pixels; Pillow does not report it."""
    with path.open("rb") as file:
        file.seek(12)
        while len(head := file.read(8)) == 8:
            name, size = head[:4], int.from_bytes(head[4:], "little")
            if name in (b"VP8 ", b"VP8L"):
                return name == b"VP8 "
            file.seek(size + size % 2, os.SEEK_CUR)
    return False


class LabelDecoder(ABC):
    """Maps the values of a dataset's masks to labels."""

    @abstractmethod
    def decode(self, mask: Image.Image, file: Path) -> NDArray[np.uint8]:
        """Return the labels of a mask.

        Args:
            mask: the decoded image of a mask, [H, W].
            file: file of the mask, for error messages.

        Returns:
            Labels, uint8 [H, W].

        Raises:
            MaskModeError: the image has another mode.
            TransparentMaskError: pixels are transparent.
            DataError: a value is neither a class nor ignored.
        """

    @abstractmethod
    def identity(self) -> list[str]:
        """Return the mapping as text, for the keys of caches. Changing this text invalidates all caches."""


class IdDecoder(LabelDecoder):
    """Decodes class numbers in one channel of 1, 8 or 16 bits; in a palette image, these are the indices."""

    def __init__(self, classes: Sequence[Iterable[int]], ignored: Iterable[int] = ()) -> None:
        """Create a decoder.

        Args:
            classes: the numbers of each class, in the order of the labels.
            ignored: numbers that are ignored; also 255, unless it is a class.
        """
        numbers = [list(values) for values in classes]
        void = [IGNORE_INDEX, *ignored]
        wide = max(max(values, default=0) for values in [*numbers, void]) > 255
        self._table = np.full(MAX_NUMBER + 1 if wide else 256, -1, dtype=np.int16)
        self._table[void] = IGNORE_INDEX
        for label, values in enumerate(numbers):
            self._table[values] = label

    def decode(self, mask: Image.Image, file: Path) -> NDArray[np.uint8]:
        mask = simplify_mode(mask, file)
        if mask.mode not in NUMBER_MODES:
            raise MaskModeError(f"{file}: the mask has mode {mask.mode}; {EXPECTED_NUMBERS}")
        raw = np.asarray(mask)
        label = self._look_up(raw)
        if label.min(initial=0) < 0:
            raise DataError(
                f"{file}: undefined labels: {count_values(raw[label < 0])}: neither a class "
                f"({self._numbers(classes=True)}) nor ignored ({self._numbers(classes=False)})"
            )
        return label.astype(np.uint8)

    def _look_up(self, raw: NDArray[Any]) -> NDArray[np.int16]:
        """Return the label of each number, -1 if it is undefined."""
        if raw.dtype == np.uint8:
            return self._table[raw]
        inside = (raw >= 0) & (raw < len(self._table))
        return np.where(inside, self._table[np.where(inside, raw, 0)], np.int16(-1))

    def identity(self) -> list[str]:
        return ["Ids", f"_table={_array_identity(self._table)}"]

    def _numbers(self, *, classes: bool) -> str:
        known = (self._table >= 0) & (self._table < IGNORE_INDEX) if classes else self._table == IGNORE_INDEX
        return format_ranges(np.flatnonzero(known))


class ColorDecoder(LabelDecoder):
    """Decodes the colors of an RGB or palette image, which are given as numbers 0xrrggbb."""

    def __init__(self, classes: Sequence[Iterable[int]], ignored: Iterable[int] = ()) -> None:
        """Create a decoder.

        Args:
            classes: the colors of each class, in the order of the labels.
            ignored: colors that are ignored.
        """
        label_of = {color: label for label, colors in enumerate(classes) for color in colors}
        label_of |= dict.fromkeys(ignored, IGNORE_INDEX)
        self._colors = np.array(sorted(label_of), dtype=np.int32)
        self._labels = np.array([label_of[color] for color in sorted(label_of)], dtype=np.uint8)

    def decode(self, mask: Image.Image, file: Path) -> NDArray[np.uint8]:
        mask = simplify_mode(mask.convert("RGB") if mask.mode == "P" else mask, file)
        if mask.mode != "RGB":
            raise MaskModeError(
                f"{file}: the mask has mode {mask.mode}; its classes are defined by colors, so an RGB or palette image "
                "is expected"
            )
        raw = pack_rgb(np.asarray(mask))
        index = np.searchsorted(self._colors, raw).clip(max=len(self._colors) - 1)
        undefined = raw[self._colors[index] != raw]
        if undefined.size:
            raise DataError(
                f"{file}: undefined labels: {count_values(undefined, '#{:06x}')}: neither a class nor ignored"
            )
        return self._labels[index]

    def identity(self) -> list[str]:
        return ["Colours", f"_colours={_array_identity(self._colors)}", f"_labels={_array_identity(self._labels)}"]


def simplify_mode(mask: Image.Image, file: Path) -> Image.Image:
    """Return a mask without an opaque alpha channel, and with one bit per pixel as the numbers 0 and 1.

    Args:
        mask: the decoded image of a mask.
        file: file of the mask, for error messages.

    Raises:
        TransparentMaskError: pixels are transparent, so that their class is unknown.
    """
    if mask.mode == "1":
        return Image.fromarray(np.asarray(mask).astype(np.uint8))
    if mask.mode not in ("LA", "PA", "RGBA"):
        return mask
    pixels = np.asarray(mask.getchannel("A"))
    transparent = int((pixels < 255).sum())
    if transparent:
        raise TransparentMaskError(
            f"{file}: {transparent} pixels of the mask are transparent (mode {mask.mode}); save the mask without "
            "transparency, with a number or color of their own for these pixels"
        )
    return mask.convert("RGB") if mask.mode == "RGBA" else mask.getchannel(0)


def pack_rgb(rgb: NDArray[np.uint8]) -> NDArray[np.int32]:
    """Return colors as numbers 0xrrggbb.

    Args:
        rgb: red, green and blue, uint8 [..., 3].

    Returns:
        One number per color, int32 [...].
    """
    wide = rgb.astype(np.int32)
    return np.asarray(wide[..., 0] << 16 | wide[..., 1] << 8 | wide[..., 2], dtype=np.int32)


def count_values(values: NDArray[Any], form: str = "{}") -> str:
    """Return the number of pixels of each value as text; at most `SHOWN` values are listed.

    Args:
        values: the values of pixels.
        form: format of a value.
    """
    found, pixels = np.unique(values, return_counts=True)
    listed = zip(found[:SHOWN].tolist(), pixels[:SHOWN].tolist(), strict=True)
    more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    return ", ".join(f"{form.format(value)} in {count:,} pixels" for value, count in listed) + more


def format_ranges(numbers: Iterable[int]) -> str:
    """Return ascending numbers as text.

    Args:
        numbers: ascending numbers.

    Example:
        >>> format_ranges([0, 1, 2, 9, 255])
        '0..2, 9, 255'
    """
    grouped = (list(group) for _, group in groupby(enumerate(numbers), lambda pair: int(pair[1]) - pair[0]))
    ends = ((int(group[0][1]), int(group[-1][1])) for group in grouped)
    return ", ".join(str(a) if a == b else f"{a}..{b}" for a, b in ends)


def _array_identity(array: NDArray[Any]) -> str:
    digest = hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()
    return f"{array.dtype}{array.shape}:{digest}"
