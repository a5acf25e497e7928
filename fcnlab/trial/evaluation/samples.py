"""Predictions of the first images of a split, saved as image files."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from fcnlab.data.datasets.image_file import Pixels, to_display
from fcnlab.data.datasets.palette import to_palette_image
from fcnlab.kernels.inputs import DecodedSample

NUM_SAMPLES = 8
"""Number of images of the reported split that are saved."""


def save_sample(folder: Path, name: str, sample: DecodedSample, prediction: Tensor, palette: Pixels) -> None:
    """Write `<name>.image.jpg`, and `<name>.label.png` and `<name>.prediction.png` as palette images.

    Args:
        folder: folder of the files; it is created.
        name: beginning of the names of the files, from `name_samples`.
        sample: image and label.
        prediction: predicted class indices [H, W].
        palette: colors of the labels, uint8 [256, 3].
    """
    folder.mkdir(exist_ok=True)
    to_display(sample.image.permute(1, 2, 0).cpu().numpy()).save(folder / f"{name}.image.jpg", quality=90)
    for role, labels in (("label", sample.label), ("prediction", prediction)):
        to_palette_image(labels.cpu().numpy(), palette).save(folder / f"{name}.{role}.png")
