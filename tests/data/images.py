"""Small images and masks with random pixels, and their files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from fcnlab.data.datasets.base import Pixels

HEIGHT, WIDTH = 6, 8


def random_image(seed: int) -> Pixels:
    """Return random RGB pixels [height, width, 3].

    Args:
        seed: seed of the pixels.

    Returns:
        The pixels.
    """
    return np.random.default_rng(seed).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)


def random_mask(seed: int, values: Sequence[int]) -> Pixels:
    """Return random labels [height, width].

    Args:
        seed: seed of the labels.
        values: labels to sample from.

    Returns:
        The labels.
    """
    return np.random.default_rng(seed).choice(np.array(values, dtype=np.uint8), (HEIGHT, WIDTH))


def save_image(pixels: np.ndarray, path: Path, *, palette: bool = False) -> None:
    """Write an image file and its folder.

    Args:
        pixels: pixels or labels.
        path: path of the file, whose ending is the format.
        palette: whether labels are written with a palette.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(pixels)
    if palette:
        image.putpalette([(37 * index) % 256 for index in range(768)])
    image.save(path)
