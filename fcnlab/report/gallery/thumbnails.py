"""Pictures small enough to travel inside a page."""

from __future__ import annotations

from base64 import b64encode
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from fcnlab.constants import IGNORE_INDEX
from fcnlab.data.datasets.base import Pixels
from fcnlab.data.datasets.palette import to_palette_image

WIDTH = 256
"""Pixels of a picture on the page."""

RIGHT, WRONG, IGNORED = 255, 0, 160
"""Greys of an error map."""


def photograph(path: Path, width: int = WIDTH) -> str:
    """An image as a data URI of JPEG."""
    with Image.open(path) as image:
        small = image.convert("RGB").resize(_size(image, width), Image.Resampling.LANCZOS)
    return _uri(small, "JPEG", quality=72, optimize=True)


def label_map(path: Path, width: int = WIDTH) -> str:
    """A picture of labels as a data URI of PNG, in the palette's colours."""
    return _uri(to_palette_image(_labels(path, width)), "PNG", optimize=True)


def error_map(prediction: Path, truth: Path, width: int = WIDTH) -> str:
    """Where a prediction is wrong, as a data URI of PNG: black is wrong, white right, and grey does not count."""
    found, labels = _labels(prediction, width), _labels(truth, width)
    error = np.where(found == labels, RIGHT, WRONG).astype(np.uint8)
    error[labels == IGNORE_INDEX] = IGNORED
    return _uri(Image.fromarray(error).quantize(4), "PNG", optimize=True)


def _labels(path: Path, width: int) -> Pixels:
    with Image.open(path) as picture:
        return np.asarray(picture.resize(_size(picture, width), Image.Resampling.NEAREST), dtype=np.uint8)


def _size(image: Image.Image, width: int) -> tuple[int, int]:
    """No picture is made larger than it is."""
    width = min(width, image.width)
    return width, max(1, round(image.height * width / image.width))


def _uri(image: Image.Image, kind: str, **options: object) -> str:
    file = BytesIO()
    image.save(file, kind, **options)
    return f"data:image/{kind.lower()};base64,{b64encode(file.getvalue()).decode()}"
