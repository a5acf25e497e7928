"""Prediction of single images with a trained model."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from fcnlab.data.batches import normalize
from fcnlab.data.datasets.image_file import ImageFormat, Pixels, to_pixels
from fcnlab.inference.description import ModelDescription
from fcnlab.models import FCN
from fcnlab.training import hardware
from fcnlab.training.prediction import compute_scores, predict_classes
from fcnlab.training.protocol import Protocol

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
        palette: colors of the classes, uint8 [classes, 3].
        mean: mean of each channel of RGB images scaled to 0..1.
        std: standard deviation of each channel, of the same images.
        image_format: conversion of images before prediction.

    Example::

        model = fcnlab.load("0714d2f3ca6f")
        labels = model.predict(Image.open("photo.jpg"))
    """

    def __init__(self, network: FCN, description: ModelDescription, device: torch.device | None = None) -> None:
        self.device = device or hardware.select_device()
        self.description = description
        self.network = network.eval().to(self.device).to(memory_format=torch.channels_last)
        self.classes = description.classes
        self.palette: Pixels = np.array(description.palette, dtype=np.uint8)
        self.mean = description.mean
        self.std = description.std
        self.image_format = ImageFormat(len(description.mean), description.value_range)

    def predict(self, image: Image.Image, protocol: Protocol = SINGLE_VIEW) -> Pixels:
        """Return the label of each pixel.

        Args:
            image: an image of any mode.
            protocol: windows, flips and scales.

        Returns:
            Labels at native size, uint8 [H, W].

        Raises:
            DataError: the image has no fixed range of values, or another number of bands.
        """
        scores, _ = self._compute_scores(image, protocol)
        return predict_classes(scores)[0].cpu().numpy()

    def predict_probabilities(self, image: Image.Image, protocol: Protocol = SINGLE_VIEW) -> NDArray[np.float32]:
        """Return the probability of each class at each pixel.

        Args:
            image: an image of any mode.
            protocol: windows, flips and scales.

        Returns:
            Probabilities at native size, float32 [classes, H, W].

        Raises:
            DataError: the image has no fixed range of values, or another number of bands.
        """
        return self.predict_both(image, protocol)[1]

    def predict_both(self, image: Image.Image, protocol: Protocol = SINGLE_VIEW) -> tuple[Pixels, NDArray[np.float32]]:
        """Return the results of `predict` and `predict_probabilities` from one forward pass.

        Args:
            image: an image of any mode.
            protocol: windows, flips and scales.

        Returns:
            Labels, uint8 [H, W], and probabilities, float32 [classes, H, W].

        Raises:
            DataError: the image has no fixed range of values, or another number of bands.
        """
        scores, normalized = self._compute_scores(image, protocol)
        probabilities = scores.float() if normalized else scores.float().softmax(1)
        return predict_classes(scores)[0].cpu().numpy(), probabilities[0].cpu().numpy()

    @torch.inference_mode()
    def _compute_scores(self, image: Image.Image, protocol: Protocol) -> tuple[Tensor, bool]:
        """Return scores [1, classes, H, W], and True if they are already probabilities."""
        pixels = torch.from_numpy(np.array(to_pixels(image, self.image_format)))
        images = pixels.permute(2, 0, 1)[None].to(self.device)
        scaled = protocol.multiply_scales(self.description.score_scale)
        precision = hardware.resolve_precision(self.description.precision, self.device)
        with hardware.create_autocast(self.device, precision)():
            scores = compute_scores(scaled, self.network, normalize(images, self.mean, self.std))
        return scores, scaled.is_augmented
