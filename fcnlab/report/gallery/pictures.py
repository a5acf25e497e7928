"""Pictures of the gallery as data URIs: photos, labels and errors as layers above a photo."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from fcnlab.constants import IGNORE_INDEX
from fcnlab.data.datasets.base import Pixels
from fcnlab.data.datasets.image_file import open_image
from fcnlab.data.datasets.palette import to_palette_image
from fcnlab.errors import DataError, RunError
from fcnlab.report.html.security import to_data_uri

RIGHT, WRONG, IGNORED, HATCH = range(4)
"""Entries of the palette of an error map: correct, wrong, ignored, and the lines over ignored pixels."""

ERROR_COLORS = ((0, 0, 0, 0), (255, 0, 110, 255), (128, 128, 128, 200), (215, 215, 215, 230))
"""Red, green, blue and opacity of these entries; correct pixels show the photo below."""

_PERIOD, _LINE = 8, 2  # pixels from one line of the hatching to the next, and the width of a line


def open_picture(path: Path) -> Image.Image:
    """Open a picture of a trial's sample or prediction.

    Args:
        path: image file.

    Raises:
        RunError: the file is damaged.
    """
    try:
        return open_image(path)
    except DataError as error:
        raise RunError(f"{error}; remove it: the next report predicts the image again, or shows others") from None


def encode_photo(path: Path, width: int) -> str:
    """Return an image as a JPEG data URI.

    Args:
        path: image file.
        width: greatest width in pixels.
    """
    image = open_picture(path)
    small = image.convert("RGB").resize(_size(image, width), Image.Resampling.LANCZOS)
    return _uri(small, "JPEG", quality=80, optimize=True)


def encode_label_map(path: Path, palette: Pixels, width: int) -> str:
    """Return labels as a PNG data URI.

    Args:
        path: palette image of the labels; its own colors are not used.
        palette: one color per label, uint8 [256, 3].
        width: greatest width in pixels.
    """
    return _uri(to_palette_image(_labels(path, width), palette), "PNG")


def encode_error_map(prediction: Path, truth: Path, width: int) -> str:
    """Return an error map as a PNG data URI: wrong pixels in one color, ignored ones hatched, others transparent.

    Args:
        prediction: palette image of the predicted labels.
        truth: palette image of the labels.
        width: greatest width in pixels.
    """
    predicted, labels = _labels(prediction, width), _labels(truth, width)
    error = np.where(predicted == labels, RIGHT, WRONG).astype(np.uint8)
    rows, columns = np.indices(error.shape)
    hatched = (rows + columns) % _PERIOD < _LINE
    error[labels == IGNORE_INDEX] = IGNORED
    error[(labels == IGNORE_INDEX) & hatched] = HATCH
    image = Image.fromarray(error, mode="P")
    image.putpalette([channel for color in ERROR_COLORS for channel in color[:3]])
    return _uri(image, "PNG", transparency=bytes(color[3] for color in ERROR_COLORS))


def _labels(path: Path, width: int) -> Pixels:
    picture = open_picture(path)
    return np.asarray(picture.resize(_size(picture, width), Image.Resampling.NEAREST), dtype=np.uint8)


def _size(image: Image.Image, width: int) -> tuple[int, int]:
    """Return the size of a picture scaled down to a width; it is never scaled up."""
    width = min(width, image.width)
    return width, max(1, round(image.height * width / image.width))


def _uri(image: Image.Image, kind: str, **options: object) -> str:
    file = BytesIO()
    image.save(file, kind, **options)
    return to_data_uri(file.getvalue(), f"image/{kind.lower()}")
