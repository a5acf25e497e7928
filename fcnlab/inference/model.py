"""Prediction of images with a trained model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_args, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fcnlab.constants import KEY_DIGITS, Precision
from fcnlab.data.batches import normalize
from fcnlab.data.datasets.image_file import ImageFormat, Pixels
from fcnlab.errors import DataError, ModelError, nearest
from fcnlab.inference.description import ModelDescription
from fcnlab.inference.images import ImageSource, ImageSources, make_batches, read_pixels
from fcnlab.models import FCN
from fcnlab.notebook import render_html
from fcnlab.training import hardware
from fcnlab.training.prediction import compute_scores, contain_nan, create_predictor, predict_classes
from fcnlab.training.protocol import Protocol

ValueRange = tuple[float, float]
"""Lowest and highest value of images of more than 8 bits, which become 0 and 255."""

SINGLE_VIEW = Protocol()
"""The default protocol: each image once, as a whole."""


class TrainedModel:
    """A trained network that predicts images like the evaluation of its trial: same normalization, scale, precision.

    Images are predicted from their stored pixels, as in training: the EXIF orientation is not applied. They are
    converted as the images of the dataset were; see `fcnlab.data.datasets.image_file.to_pixels`.

    Args:
        network: the FCN.
        description: its metadata.
        device: device of prediction; by default the first GPU, or the CPU if there is none.

    Attributes:
        network: the FCN, on the device and in evaluation mode.
        description: metadata such as the key of the trial.
        device: device of prediction.
        classes: names of the classes, by label.
        palette: colors of the classes, uint8 [num_classes, 3].
        mean: mean of each channel of RGB images scaled to 0..1.
        std: standard deviation of each channel, of the same images.
        image_format: conversion of images before prediction.

    Example::

        model = fcnlab.load("0714d2f3ca6f")
        labels = model.predict("photo.jpg")
    """

    def __init__(self, network: FCN, description: ModelDescription, device: torch.device | None = None) -> None:
        self.device = device or hardware.select_device()
        self.description = description
        self.network = hardware.move_to_device(network.eval(), self.device)
        self.classes = description.classes
        self.palette: Pixels = np.array(description.palette, dtype=np.uint8)
        self.mean = description.mean
        self.std = description.std
        self.image_format = ImageFormat(len(description.mean), description.value_range)

    @property
    def precision(self) -> Precision:
        """Precision of prediction: that of the training on the same type of device, else that of the recipe."""
        about = self.description
        return hardware.resolve_recorded_precision(about.precision, about.recorded_precision, self.device)

    def with_precision(self, precision: Precision) -> TrainedModel:
        """Return a model with the same network that predicts in another precision.

        Args:
            precision: `fp32`, `tf32`, `bf16` or `fp16`; TF32 is fp32 if the hardware has none.

        Raises:
            ModelError: it is none of these.
        """
        if precision not in get_args(Precision):
            raise ModelError(f"precision '{precision}': {nearest(precision, get_args(Precision))}")
        changes: dict[str, Any] = {"precision": precision, "recorded_precision": {}}
        return TrainedModel(self.network, self.description.model_copy(update=changes), self.device)

    def __repr__(self) -> str:
        about = self.description
        variant = about.names.get("variant", "network")
        return (
            f"TrainedModel({variant}, {len(self.classes)} classes, epoch {about.epoch} ({about.checkpoint}) of trial "
            f"{about.key[:KEY_DIGITS]}, on {self.device})"
        )

    def _repr_html_(self) -> str:
        about = self.description
        rows = [
            ("trial", about.key[:KEY_DIGITS]),
            ("dataset", about.names.get("dataset", "")),
            ("recipe", about.names.get("recipe", "")),
            ("weights", f"epoch {about.epoch} ({about.checkpoint})"),
            ("classes", f"{len(self.classes)}: {', '.join(self.classes)}"),
            ("device", f"{self.device}, {self.precision}"),
        ]
        return render_html(about.names.get("variant", "network"), rows=[row for row in rows if row[1]])

    @overload
    def predict(
        self, images: ImageSource, protocol: Protocol = ..., *, value_range: ValueRange | None = ...
    ) -> Pixels: ...
    @overload
    def predict(
        self, images: ImageSources, protocol: Protocol = ..., *, value_range: ValueRange | None = ...
    ) -> list[Pixels]: ...
    def predict(
        self,
        images: ImageSource | ImageSources,
        protocol: Protocol = SINGLE_VIEW,
        *,
        value_range: ValueRange | None = None,
    ) -> Pixels | list[Pixels]:
        """Return the label of each pixel.

        Args:
            images: a PIL image of any mode, an array uint8 [H, W, 3] in the order RGB (or of the model's channels), the
                path of an image file, or a list of them. Neighbors of one size in a list are predicted in one batch,
                whose scores may differ in the last bits from those of single images.
            protocol: windows, flips and scales.
            value_range: values of images of more than 8 bits that become 0 and 255; by default those of the model's
                dataset, or 0 and 65535 for 16 bits.

        Returns:
            Labels at native size, uint8 [H, W]; a list of them for a list.

        Raises:
            DataError: a file cannot be read, an array has another shape or type of values, or an image has no fixed
                range of values or another number of bands; or `value_range` does not increase.
            ModelError: a score is not a number.
        """
        scaled = protocol.multiply_scales(self.description.score_scale)
        predictor = create_predictor(self.network, scaled, self.device)

        @torch.inference_mode()
        def predict_labels(pixels: Pixels) -> Pixels:
            with hardware.create_autocast(self.device, self.precision)():
                classes, has_nan = predictor(self._normalize(pixels))
            _check_numbers(has_nan)
            return classes.cpu().numpy()

        return self._predict(images, value_range, predict_labels)

    @overload
    def predict_probabilities(
        self, images: ImageSource, protocol: Protocol = ..., *, value_range: ValueRange | None = ...
    ) -> NDArray[np.float32]: ...
    @overload
    def predict_probabilities(
        self, images: ImageSources, protocol: Protocol = ..., *, value_range: ValueRange | None = ...
    ) -> list[NDArray[np.float32]]: ...
    def predict_probabilities(
        self,
        images: ImageSource | ImageSources,
        protocol: Protocol = SINGLE_VIEW,
        *,
        value_range: ValueRange | None = None,
    ) -> NDArray[np.float32] | list[NDArray[np.float32]]:
        """Return the probability of each class at each pixel.

        Args:
            images: an image or a list of images, as in `predict`.
            protocol: windows, flips and scales.
            value_range: values of images of more than 8 bits that become 0 and 255, as in `predict`.

        Returns:
            Probabilities at native size, float32 [num_classes, H, W]; a list of them for a list.

        Raises:
            DataError: an image cannot be read or converted, as in `predict`.
            ModelError: a probability is not a number.
        """
        return self._predict(
            images, value_range, lambda pixels: _to_probabilities(*self._compute_scores(pixels, protocol))
        )

    def predict_both(
        self, image: ImageSource, protocol: Protocol = SINGLE_VIEW, *, value_range: ValueRange | None = None
    ) -> tuple[Pixels, NDArray[np.float32]]:
        """Return the results of `predict` and `predict_probabilities` from one forward pass.

        The labels are the classes of the greatest probability. Those of `predict`, which computes no probabilities if
        it can, are others where rounding decides between two classes.

        Args:
            image: an image, as in `predict`.
            protocol: windows, flips and scales.
            value_range: values of images of more than 8 bits that become 0 and 255, as in `predict`.

        Returns:
            Labels, uint8 [H, W], and probabilities, float32 [num_classes, H, W].

        Raises:
            DataError: the image cannot be read or converted, as in `predict`.
            ModelError: a score or a probability is not a number.
        """
        pixels = read_pixels(image, self.select_format(value_range))
        scores, normalized = self._compute_scores(pixels[None], protocol)
        _check_numbers(contain_nan(scores))
        return predict_classes(scores)[0].cpu().numpy(), _to_probabilities(scores, normalized)[0]

    def select_format(self, value_range: ValueRange | None) -> ImageFormat:
        """Return the conversion of images with a range of values.

        Args:
            value_range: values of images of more than 8 bits that become 0 and 255; None for those of the model.

        Raises:
            DataError: the range does not increase.
        """
        if value_range is None:
            return self.image_format
        low, high = value_range
        if not low < high or not np.isfinite([low, high]).all():
            raise DataError(f"the range of values must increase and be finite, not {low:g} to {high:g}")
        return ImageFormat(self.image_format.channels, (low, high))

    def _predict(
        self,
        images: ImageSource | ImageSources,
        value_range: ValueRange | None,
        predict_batch: Callable[[Pixels], NDArray[Any]],
    ) -> Any:
        """Predict an image or a list of images.

        Args:
            images: an image or a list of images.
            value_range: values of images of more than 8 bits that become 0 and 255; None for those of the model.
            predict_batch: function from pixels [B, H, W, C] to one result per image.
        """
        image_format = self.select_format(value_range)
        if not isinstance(images, list | tuple):
            return predict_batch(read_pixels(images, image_format)[None])[0]
        return [result for batch in make_batches(images, image_format) for result in predict_batch(batch)]

    @torch.inference_mode()
    def _compute_scores(self, pixels: Pixels, protocol: Protocol) -> tuple[Tensor, bool]:
        """Return scores [B, num_classes, H, W] of pixels [B, H, W, C], and True if they are already probabilities."""
        scaled = protocol.multiply_scales(self.description.score_scale)
        with hardware.create_autocast(self.device, self.precision)():
            scores = compute_scores(scaled, self.network, self._normalize(pixels))
        return scores, scaled.is_augmented

    def _normalize(self, pixels: Pixels) -> Tensor:
        """Return normalized images [B, C, H, W] of pixels [B, H, W, C], on the device."""
        images = torch.from_numpy(np.array(pixels)).permute(0, 3, 1, 2).to(self.device)
        return normalize(images, self.mean, self.std)


def _to_probabilities(scores: Tensor, normalized: bool) -> NDArray[np.float32]:
    """Return the probabilities [B, num_classes, H, W] of scores, which are probabilities already if `normalized`."""
    probabilities = scores.float() if normalized else scores.float().softmax(1)
    _check_numbers(contain_nan(probabilities))
    return probabilities.cpu().numpy()


def _check_numbers(has_nan: Tensor) -> None:
    """Raise an error if a score or probability is nan: the class with the greatest one would be undefined."""
    if has_nan:
        raise ModelError(
            "the scores of an image are not numbers, because weights are not finite or activations exceed the range of "
            "the precision; train with recipe.precision bf16 or fp32"
        )
