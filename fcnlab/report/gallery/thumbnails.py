"""Small pictures as data URIs, to be embedded in the page."""

from __future__ import annotations

from base64 import b64encode
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from fcnlab.constants import IGNORE_INDEX
from fcnlab.data.datasets.base import Pixels
from fcnlab.data.datasets.palette import read_palette, to_palette_image

WIDTH = 256
"""Width of a picture on the page in pixels."""

RIGHT, WRONG, IGNORED = 255, 0, 160
"""Gray levels of an error map."""


def encode_photo(path: Path, width: int = WIDTH) -> str:
    """Return an image as a JPEG data URI.

    Args:
        path: image file.
        width: greatest width in pixels.
    """
    with Image.open(path) as image:
        small = image.convert("RGB").resize(_size(image, width), Image.Resampling.LANCZOS)
    return _uri(small, "JPEG", quality=72, optimize=True)


def encode_label_map(path: Path, width: int = WIDTH) -> str:
    """Return labels as a PNG data URI in the colors of their file.

    Args:
        path: palette image of the labels.
        width: greatest width in pixels.
    """
    return _uri(to_palette_image(_labels(path, width), read_palette(path)), "PNG", optimize=True)


def encode_error_map(prediction: Path, truth: Path, width: int = WIDTH) -> str:
    """Return an error map as a PNG data URI: black is wrong, white is right, gray is ignored.

    Args:
        prediction: palette image of the predicted labels.
        truth: palette image of the labels.
        width: greatest width in pixels.
    """
    found, labels = _labels(prediction, width), _labels(truth, width)
    error = np.where(found == labels, RIGHT, WRONG).astype(np.uint8)
    error[labels == IGNORE_INDEX] = IGNORED
    return _uri(Image.fromarray(error).quantize(4), "PNG", optimize=True)


def _labels(path: Path, width: int) -> Pixels:
    with Image.open(path) as picture:
        return np.asarray(picture.resize(_size(picture, width), Image.Resampling.NEAREST), dtype=np.uint8)


def _size(image: Image.Image, width: int) -> tuple[int, int]:
    """Return the size of a picture scaled down to a width; it is never scaled up."""
    width = min(width, image.width)
    return width, max(1, round(image.height * width / image.width))


def _uri(image: Image.Image, kind: str, **options: object) -> str:
    file = BytesIO()
    image.save(file, kind, **options)
    return f"data:image/{kind.lower()};base64,{b64encode(file.getvalue()).decode()}"
