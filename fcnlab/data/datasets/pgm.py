"""Stored values of PGM and PPM files, whose headers set the maximum value. Pillow scales them to 8 or 16 bits."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_MAXVAL = "pgm_maxval"
"""Key of the maximum value in the `info` of an image that `remember_maxval` has seen."""


def read_maxval(image: Image.Image) -> int | None:
    """Return the maximum value of a PGM or PPM file if Pillow scales its values.

    Args:
        image: an image that was opened.

    Returns:
        The number in the header; None for other images, for those that are not scaled, and for those whose pixels were
        decoded without `remember_maxval`.
    """
    if image.format != "PPM" or image.mode not in ("L", "I", "RGB"):
        return None
    for decoder, _, _, arguments in getattr(image, "tile", ()):
        return int(arguments[1]) if decoder in ("ppm", "ppm_plain") else None
    maxval = image.info.get(_MAXVAL)
    return int(maxval) if maxval is not None else None


def remember_maxval(image: Image.Image) -> None:
    """Keep the maximum value of an open file, which Pillow discards when it decodes the pixels.

    Args:
        image: the image before its pixels are decoded.
    """
    image.info[_MAXVAL] = read_maxval(image)


def restore_values(image: Image.Image, maxval: int) -> NDArray[np.integer]:
    """Return the stored values of a decoded PGM file.

    Pillow has scaled them from 0..maxval to 0..255 or 0..65535 and rounded, which changes a value by at most half the
    distance to the next one. Therefore, rounding the inverse gives the stored values exactly.

    Args:
        image: the decoded image, of mode L or I.
        maxval: result of `read_maxval`.

    Returns:
        Values of the type of the image's pixels, [H, W].
    """
    scaled = np.asarray(image)
    levels = np.rint(scaled * (maxval / (65535 if image.mode == "I" else 255)))
    values: NDArray[np.integer] = levels.astype(scaled.dtype)
    return values
