"""The first predictions of a trial as small pictures, so that people look at them beside the figures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from fcnlab.data.base import IGNORE
from fcnlab.data.decoded import Decoded

SAMPLES = 8
"""How many images of the reported split are kept."""


def palette() -> NDArray[np.uint8]:
    """VOC's colours for 256 labels, [256, 3]: each label's bits spread over the high bits of red, green and blue."""
    labels = np.arange(256)
    colours = np.zeros((256, 3), dtype=np.uint8)
    for bit in range(8):
        for channel in range(3):
            colours[:, channel] |= (((labels >> (3 * bit + channel)) & 1) << (7 - bit)).astype(np.uint8)
    colours[IGNORE] = 255  # white, so that what does not count is told from every class
    return colours


def save_sample(folder: Path, id_: str, sample: Decoded, prediction: Tensor) -> None:
    """Write `<id>.image.jpg`, `<id>.label.png` and `<id>.prediction.png`; labels as palette images."""
    folder.mkdir(exist_ok=True)
    name = id_.replace("/", "_")
    Image.fromarray(sample.image.permute(1, 2, 0).numpy()).save(folder / f"{name}.image.jpg", quality=90)
    for role, labels in (("label", sample.label), ("prediction", prediction)):
        picture = Image.fromarray(labels.numpy(), mode=None)
        picture.putpalette(palette().tobytes())
        picture.save(folder / f"{name}.{role}.png", optimize=True)
