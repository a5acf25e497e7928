"""Images to predict: Pillow images, arrays and files, and batches of images of one size."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fcnlab.data.datasets import image_file
from fcnlab.data.datasets.image_file import IMAGE_ERRORS, ImageFormat, Pixels, to_pixels
from fcnlab.errors import DataError
from fcnlab.paths import is_folder

ImageSource = Image.Image | NDArray[np.uint8] | str | os.PathLike[str]
"""An image to predict: a Pillow image, an array, or the path of an image file."""

ImageSources = (
    list[Image.Image]
    | list[NDArray[np.uint8]]
    | list[str]
    | list[Path]
    | list[ImageSource]  # of several kinds
    | tuple[ImageSource, ...]
)
"""Several images to predict."""

MAX_IMAGES = 8
"""Most images of a batch."""

MAX_PIXELS = 4_000_000
"""Most pixels of a batch of several images, so that large images are predicted one by one."""


def read_pixels(source: ImageSource, image_format: ImageFormat) -> Pixels:
    """Return the pixels of an image as a model expects them.

    Args:
        source: a Pillow image of any mode, an array uint8 [H, W, channels], or the path of an image file.
        image_format: channels and range of values of the model.

    Returns:
        uint8 [H, W, channels].

    Raises:
        DataError: the file cannot be read, the array has another shape or type of values, or the image cannot be
            converted.
    """
    if isinstance(source, np.ndarray):
        return _check_array(source, image_format.channels)
    if isinstance(source, Image.Image):
        try:
            return to_pixels(source, image_format)
        except IMAGE_ERRORS as error:  # Pillow decodes an opened file here
            raise DataError(f"the image cannot be decoded: {error}") from None
    if not isinstance(source, str | os.PathLike):
        raise DataError(
            f"cannot predict an object of type {type(source).__name__}; pass a PIL image, an array, a path, or a list "
            "of them"
        )
    path = Path(source)
    if is_folder(path):
        raise DataError(f"{path}: is a folder; pass a list of its images, such as list(Path('{path}').glob('*.png'))")
    return image_file.read_pixels(path, image_format)


def _check_array(array: NDArray[np.uint8], channels: int) -> Pixels:
    """Return an array if it is a picture of the model's channels."""
    if array.dtype == np.uint8 and array.ndim == 3 and array.shape[2] == channels and array.size:
        return array
    order = " in the order RGB" if channels == 3 else ""
    shape = ", ".join(map(str, array.shape))
    hint = "; pass several images as a list" if array.ndim == 4 else ""
    raise DataError(f"an array must be uint8 [H, W, {channels}]{order}; this one is {array.dtype} [{shape}]{hint}")


def make_batches(sources: Iterable[ImageSource], image_format: ImageFormat) -> Iterator[Pixels]:
    """Yield the pixels of images in their order; neighbors of one size are in one batch.

    Args:
        sources: the images.
        image_format: channels and range of values of the model.

    Yields:
        uint8 [B, H, W, channels].

    Raises:
        DataError: an image cannot be read; the message names the file or the index.
    """
    batch: list[Pixels] = []
    for index, source in enumerate(sources):
        try:
            pixels = read_pixels(source, image_format)
        except DataError as error:
            named = isinstance(source, str | os.PathLike)
            raise DataError(str(error) if named else f"image {index} of the list: {error}") from None
        full = len(batch) == MAX_IMAGES or (len(batch) + 1) * pixels[..., 0].size > MAX_PIXELS
        if batch and (full or batch[0].shape != pixels.shape):
            yield np.stack(batch)
            batch = []
        batch.append(pixels)
    if batch:
        yield np.stack(batch)
