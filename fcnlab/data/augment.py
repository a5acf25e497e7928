"""Random scale, crop with padding and flip, which move image and label together, and colour jitter of the image.

What is drawn for a sample follows from (seed, epoch, index) alone; so it is the same for every cell of a grid and
for any number of workers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor
from torch.nn.functional import pad
from torchvision.transforms.v2.functional import (
    InterpolationMode,
    adjust_brightness,
    adjust_contrast,
    adjust_hue,
    adjust_saturation,
    resize,
)

from fcnlab.data.base import IGNORE
from fcnlab.data.decoded import Decoded


@dataclass(frozen=True)
class Jitter:
    """Random colours: brightness, contrast and saturation by a factor within 1 ± the value, hue by ± turns.

    The changes are those of torchvision's ColorJitter, in this fixed order, and before the crop's padding.
    """

    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0

    def __call__(self, image: Tensor, draws: np.ndarray[tuple[int], np.dtype[np.float64]]) -> Tensor:
        """Change a uint8 image [3, H, W] by four draws from 0..1."""
        brightness, contrast, saturation, hue = 2 * draws - 1
        if self.brightness:
            image = adjust_brightness(image, 1 + self.brightness * brightness)
        if self.contrast:
            image = adjust_contrast(image, 1 + self.contrast * contrast)
        if self.saturation:
            image = adjust_saturation(image, 1 + self.saturation * saturation)
        if self.hue:
            image = adjust_hue(image, self.hue * hue)
        return image


@dataclass(frozen=True)
class Augmentation:
    """What is done to a training sample.

    Attributes:
        crop: height and width of the result.
        scale: range of the random factor on height and width, drawn log-uniformly; None keeps the size.
        flip: probability of a left-right flip.
        fill: grey level of padded pixels by channel: the mean image, which normalises to about zero.
        jitter: the random change of colours.
    """

    crop: tuple[int, int]
    scale: tuple[float, float] | None
    flip: float
    fill: tuple[int, int, int]
    jitter: Jitter = Jitter()

    def __call__(self, sample: Decoded, rng: np.random.Generator) -> Decoded:
        """Augment one sample to an image [3, *crop] and a label [*crop]; both stay uint8."""
        # Every number is drawn whatever is used, so that two recipes share the draws that they have in common.
        factor, top, left, mirror = rng.random(4)
        image, label = self.jitter(sample.image, rng.random(4)), sample.label
        if self.scale is not None:
            low, high = self.scale
            image, label = _resized(image, label, low * (high / low) ** factor)
        image, label = self._padded(image, label)
        y = int(top * (label.shape[0] - self.crop[0] + 1))
        x = int(left * (label.shape[1] - self.crop[1] + 1))
        window = (..., slice(y, y + self.crop[0]), slice(x, x + self.crop[1]))
        image, label = image[window], label[window]
        return Decoded(image.flip(-1), label.flip(-1)) if mirror < self.flip else Decoded(image, label)

    def _padded(self, image: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        """Pad at the right and below to at least the crop: nothing is dropped for being small."""
        down = max(0, self.crop[0] - label.shape[0])
        right = max(0, self.crop[1] - label.shape[1])
        if not (down or right):
            return image, label
        height, width = label.shape
        padded = image.new_tensor(self.fill)[:, None, None].repeat(1, height + down, width + right)
        padded[:, :height, :width] = image
        return padded, pad(label, (0, right, 0, down), value=IGNORE)


def _resized(image: Tensor, label: Tensor, factor: float) -> tuple[Tensor, Tensor]:
    """Resize by a factor: the image bilinearly with antialiasing, the label to the nearest."""
    size = [max(1, round(factor * extent)) for extent in label.shape]
    return (
        resize(image, size, InterpolationMode.BILINEAR, antialias=True),
        resize(label[None], size, InterpolationMode.NEAREST_EXACT)[0],
    )
