"""A trained network as something that images go into and labels come out of."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from fcnlab.data.batches import normalize
from fcnlab.data.datasets.base import Pixels
from fcnlab.data.inspection.diagnosis import HIGH_BIT_DEPTH_MODES
from fcnlab.errors import DataError
from fcnlab.inference.description import Description
from fcnlab.models import FCN
from fcnlab.training import hardware
from fcnlab.training.inference import compute_scores, predict_classes
from fcnlab.training.protocol import Protocol

PLAIN = Protocol()


class TrainedModel:
    """Predicts images as the trial's record was scored: the same normalisation, scale and precision.

    Attributes:
        description: what is known of it, such as the trial's key.
        network: the FCN itself, on its device and in evaluation mode.
        classes: names, by label.
        palette: the colours in which labels are shown, uint8 [classes, 3].
        mean, std: by channel, of RGB images scaled to 0..1.
    """

    def __init__(self, network: FCN, description: Description, device: torch.device | None = None) -> None:
        """`device` is where it predicts, by default the first GPU or else the CPU."""
        self.device = device or hardware.select_device()
        self.description = description
        self.network = network.eval().to(self.device).to(memory_format=torch.channels_last)
        self.classes = description.classes
        self.palette: Pixels = np.array(description.palette, dtype=np.uint8)
        self.mean = description.mean
        self.std = description.std

    def predict(self, image: Image.Image, protocol: Protocol = PLAIN) -> Pixels:
        """The label of each pixel, uint8 [H, W], at the image's own size.

        The stored pixels count, as in training: an EXIF orientation turns nothing. Greyscale, palette, CMYK and RGBA
        images are converted to RGB; alpha is left out.

        Raises:
            DataError: an image of more than 8 bits a channel, which would be cut off at 255.
        """
        scores, _ = self._scores(image, protocol)
        return predict_classes(scores)[0].cpu().numpy()

    def probabilities(self, image: Image.Image, protocol: Protocol = PLAIN) -> NDArray[np.float32]:
        """The probability of each class at each pixel, float32 [classes, H, W], at the image's own size.

        Raises:
            DataError: as `predict`.
        """
        return self.both(image, protocol)[1]

    def both(self, image: Image.Image, protocol: Protocol = PLAIN) -> tuple[Pixels, NDArray[np.float32]]:
        """What `predict` and `probabilities` give, from one pass through the network.

        Raises:
            DataError: as `predict`.
        """
        scores, normal = self._scores(image, protocol)
        probabilities = scores.float() if normal else scores.float().softmax(1)
        return predict_classes(scores)[0].cpu().numpy(), probabilities[0].cpu().numpy()

    @torch.inference_mode()
    def _scores(self, image: Image.Image, protocol: Protocol) -> tuple[Tensor, bool]:
        """Scores [1, classes, H, W], and whether they are probabilities already."""
        pixels = torch.from_numpy(np.array(rgb(image)))
        images = pixels.permute(2, 0, 1)[None].to(self.device)
        asked = protocol.multiply_scales(self.description.score_scale)
        precision = hardware.resolve_precision(self.description.precision, self.device)
        with hardware.create_autocast(self.device, precision)():
            scores = compute_scores(asked, self.network, normalize(images, self.mean, self.std))
        return scores, asked.is_augmented


def rgb(image: Image.Image) -> Image.Image:
    """An image as training sees it.

    Raises:
        DataError: it has more than 8 bits a channel.
    """
    if image.mode in HIGH_BIT_DEPTH_MODES:
        raise DataError(
            f"mode {image.mode}: more than 8 bits a channel, and what is above 255 would be cut off; scale it to 8 bits"
        )
    return image.convert("RGB")
