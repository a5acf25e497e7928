"""What is written of a prediction: a mask, the image with the mask over it, the probabilities."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image

from fcnlab.data.datasets.base import Pixels
from fcnlab.data.datasets.palette import to_palette_image, voc_palette
from fcnlab.data.inspection.preview import legend, overlay
from fcnlab.errors import RunError
from fcnlab.inference.model import TrainedModel, rgb
from fcnlab.training.protocol import Protocol

LEGEND = 320
"""Pixels that a legend is wide at least."""


@dataclass(frozen=True)
class OutputOptions:
    """What is written beside the masks."""

    overlay: bool = False
    probabilities: bool = False


def places(out: Path, name: str, wanted: OutputOptions) -> dict[str, Path]:
    """Where what comes of one image is written, by what it is."""
    there = {"mask": out / "masks" / f"{name}.png"}
    if wanted.overlay:
        there["overlay"] = out / "overlays" / f"{name}.png"
    if wanted.probabilities:
        there["probabilities"] = out / "probabilities" / f"{name}.npz"
    return there


def check_not_existing(files: Iterable[Path]) -> None:
    """Raise RunError where one of the files is there already."""
    taken = [file for file in files if file.exists()]
    if taken:
        more = f" and {len(taken) - 1} more" if len(taken) > 1 else ""
        are = "are" if more else "is"
        raise RunError(f"{taken[0]}{more} {are} there already; choose another --out, or pass --overwrite")


def overlay_with_legend(image: Image.Image, labels: Pixels, classes: Sequence[str]) -> Image.Image:
    """The grey of an RGB image with the colours of its labels over it, and below it the classes that occur."""
    picture = overlay(image, Image.fromarray(voc_palette()[labels]))
    below = legend([int(label) for label in np.unique(labels)], classes, max(picture.width, LEGEND))
    page = Image.new("RGB", (below.width, picture.height + below.height), "white")
    page.paste(picture, (0, 0))
    page.paste(below, (0, picture.height))
    return page


def write(there: Mapping[str, Path], image: Image.Image, model: TrainedModel, protocol: Protocol) -> None:
    """Predict an image and write what is wanted of it.

    `mask` is a palette PNG whose indices are the labels; `overlay` a PNG; `probabilities` an .npz with `probabilities`
    [classes, H, W] as float16, which is exact to 0.0005, and the names of the `classes`.

    Raises:
        DataError: an image that cannot be predicted.
        RunError: a file cannot be written.
    """
    if "probabilities" in there:
        labels, probabilities = model.both(image, protocol)
        small, classes = probabilities.astype(np.float16), np.array(model.classes)
        _write(there["probabilities"], lambda to: np.savez_compressed(to, probabilities=small, classes=classes))
    else:
        labels = model.predict(image, protocol)
    _write(there["mask"], lambda to: to_palette_image(labels).save(to, format="PNG", optimize=True))
    if "overlay" in there:
        picture = overlay_with_legend(rgb(image), labels, model.classes)
        _write(there["overlay"], lambda to: picture.save(to, format="PNG", optimize=True))


def _write(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            write(file)
    except OSError as error:
        raise RunError(f"{path}: cannot be written: {error.strerror or error}") from None
