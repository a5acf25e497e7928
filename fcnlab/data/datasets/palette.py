"""Colors of labels in images."""

from __future__ import annotations

import numpy as np
from PIL import Image

from fcnlab.constants import IGNORE_INDEX
from fcnlab.data.datasets.base import Pixels


def voc_palette() -> Pixels:
    """Return the color map of PASCAL VOC for 256 labels, uint8 [256, 3]; ignored pixels are white."""
    labels = np.arange(256)
    colors = np.zeros((256, 3), dtype=np.uint8)
    for bit in range(8):
        for channel in range(3):
            colors[:, channel] |= (((labels >> (3 * bit + channel)) & 1) << (7 - bit)).astype(np.uint8)
    colors[IGNORE_INDEX] = 255
    return colors


def to_palette_image(labels: Pixels) -> Image.Image:
    """Return labels as a palette image, whose indices are the labels.

    Args:
        labels: uint8 [H, W].
    """
    picture = Image.fromarray(labels)
    picture.putpalette(voc_palette().tobytes())
    return picture
