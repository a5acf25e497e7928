"""The colours in which labels are shown."""

from __future__ import annotations

import numpy as np
from PIL import Image

from fcnlab.constants import IGNORE_INDEX
from fcnlab.data.datasets.base import Pixels


def voc_palette() -> Pixels:
    """VOC's colours for 256 labels, [256, 3]: each label's bits spread over the high bits of red, green and blue."""
    labels = np.arange(256)
    colours = np.zeros((256, 3), dtype=np.uint8)
    for bit in range(8):
        for channel in range(3):
            colours[:, channel] |= (((labels >> (3 * bit + channel)) & 1) << (7 - bit)).astype(np.uint8)
    colours[IGNORE_INDEX] = 255  # white, so that what does not count is told from every class
    return colours


def to_palette_image(labels: Pixels) -> Image.Image:
    """Labels [H, W] as a palette image (mode P): the indices are the labels, viewers show the colours."""
    picture = Image.fromarray(labels)
    picture.putpalette(voc_palette().tobytes())
    return picture
