"""Files of a prediction: mask, overlay and probabilities."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image

from fcnlab.data.datasets.image_file import Pixels, to_display, to_pixels
from fcnlab.data.datasets.palette import to_palette_image
from fcnlab.data.inspection.preview import blend_label_colors, blend_with_gray, draw_legend
from fcnlab.errors import RunError
from fcnlab.inference.model import TrainedModel, ValueRange
from fcnlab.paths import exists, resolve_path
from fcnlab.storage_errors import convert_write_errors
from fcnlab.training.protocol import Protocol

MIN_LEGEND_WIDTH = 320
"""Minimum width of a legend in pixels."""


def output_paths(out: Path, name: str, *, overlay: bool, probabilities: bool) -> dict[str, Path]:
    """Return the paths of the files of one prediction.

    Args:
        out: output folder.
        name: name of the files without extension, as of `choose_output_names`.
        overlay: include an overlay.
        probabilities: include probabilities.

    Returns:
        Paths by kind: `mask`, and if included `overlay` and `probabilities`.
    """
    paths = {"mask": out / "masks" / f"{name}.png"}
    if overlay:
        paths["overlay"] = out / "overlays" / f"{name}.png"
    if probabilities:
        paths["probabilities"] = out / "probabilities" / f"{name}.npz"
    return paths


def check_not_existing(files: Iterable[Path]) -> None:
    """Check that none of the files exists.

    Args:
        files: paths to check.

    Raises:
        RunError: at least one file exists.
    """
    existing = [file for file in files if exists(file)]
    if existing:
        others = f" (and {len(existing) - 1} more)" if len(existing) > 1 else ""
        raise RunError(f"{existing[0]}: file exists{others}; choose another --out, or pass --overwrite")


def check_not_inputs(files: Iterable[Path], images: Iterable[Path]) -> None:
    """Check that no prediction replaces an image that is to be predicted.

    Args:
        files: paths of the predictions.
        images: paths of the images.

    Raises:
        RunError: a file is one of the images.
    """
    inputs = {resolve_path(image) for image in images}
    for file in files:
        if resolve_path(file) in inputs:
            raise RunError(f"{file}: its prediction would overwrite this image; choose another --out")


def draw_overlay(image: Image.Image, labels: Pixels, classes: Sequence[str], palette: Pixels) -> Image.Image:
    """Blend an image in gray with the colors of its labels, and add a legend of the classes that occur.

    Args:
        image: an RGB image.
        labels: label of each pixel, uint8 [H, W].
        classes: names of the classes, by label.
        palette: colors of the classes, uint8 [num_classes, 3].
    """
    blended = blend_label_colors(image, Image.fromarray(palette[labels]))
    occurring, width = [int(label) for label in np.unique(labels)], max(blended.width, MIN_LEGEND_WIDTH)
    key = draw_legend(occurring, classes, width, blend_with_gray(palette))
    page = Image.new("RGB", (key.width, blended.height + key.height), "white")
    page.paste(blended, (0, 0))
    page.paste(key, (0, blended.height))
    return page


def write_prediction(
    paths: Mapping[str, Path],
    image: Image.Image,
    model: TrainedModel,
    protocol: Protocol,
    value_range: ValueRange | None = None,
) -> None:
    """Predict an image and write the files of the prediction.

    `mask` is a palette PNG whose indices are the labels, `overlay` a PNG, and `probabilities` an .npz with the arrays
    `probabilities`, float16 [num_classes, H, W] (rounding error at most 0.0005), and `classes`.

    Args:
        paths: result of `output_paths`.
        image: the image.
        model: the model.
        protocol: windows, flips and scales.
        value_range: values of images of more than 8 bits that become 0 and 255; None for those of the model.

    Raises:
        DataError: the image cannot be predicted.
        RunError: a file cannot be written.
    """
    if "probabilities" in paths:
        labels, probabilities = model.predict_both(image, protocol, value_range=value_range)
        rounded, classes = probabilities.astype(np.float16), np.array(model.classes)
        _write(paths["probabilities"], lambda file: np.savez_compressed(file, probabilities=rounded, classes=classes))
    else:
        labels = model.predict(image, protocol, value_range=value_range)
    _write(paths["mask"], lambda file: to_palette_image(labels, model.palette).save(file, format="PNG"))
    if "overlay" in paths:
        shown = to_display(to_pixels(image, model.select_format(value_range)))
        picture = draw_overlay(shown, labels, model.classes, model.palette)
        _write(paths["overlay"], lambda file: picture.save(file, format="PNG"))


def _write(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    with convert_write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            write(file)
