"""Inputs of the augmentation kernels: samples, and the sampled parameters of their augmentation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fcnlab.config.augmentation import ColorJitter


@dataclass(frozen=True)
class DecodedSample:
    """An image and its label as tensors.

    Attributes:
        image: uint8 [C, H, W]. The channels of a pixel are adjacent in memory (channels-last layout).
        label: uint8 [H, W].
    """

    image: Tensor
    label: Tensor

    @property
    def nbytes(self) -> int:
        """Bytes of the image and the label."""
        return self.image.nbytes + self.label.nbytes


@dataclass(frozen=True)
class RawBatch:
    """The samples of one batch on a device, before augmentation.

    Attributes:
        pixels: flat uint8 tensor that contains the samples, and possibly others.
        table: offset in bytes, height and width of each sample of the batch, int64 [B, 3]. An image [H, W, C] begins
            at the offset, and its label [H, W] follows it.
        channels: number of channels C of the images.
    """

    pixels: Tensor
    table: NDArray[np.int64]
    channels: int = 3

    def samples(self) -> list[DecodedSample]:
        """Return views of the samples."""
        return [view_sample(self.pixels, *row, channels=self.channels) for row in self.table.tolist()]


def view_sample(pixels: Tensor, offset: int, height: int, width: int, *, channels: int = 3) -> DecodedSample:
    """Return views of one sample in a flat tensor.

    Args:
        pixels: flat uint8 tensor, laid out as described in `RawBatch`.
        offset: first byte of the sample.
        height: height of the image.
        width: width of the image.
        channels: number of channels of the image.
    """
    size = height * width
    label = offset + channels * size
    image = pixels[offset:label].view(height, width, channels).permute(2, 0, 1)
    return DecodedSample(image, pixels[label : label + size].view(height, width))


@dataclass(frozen=True)
class Window:
    """A rectangle of rows and columns of an image, in pixels."""

    top: int
    left: int
    height: int
    width: int

    @property
    def bottom(self) -> int:
        """The row after the last."""
        return self.top + self.height

    @property
    def right(self) -> int:
        """The column after the last."""
        return self.left + self.width

    def crop(self, pixels: Tensor) -> Tensor:
        """Return a view of this window.

        Args:
            pixels: a tensor [..., H, W].
        """
        return pixels[..., self.top : self.bottom, self.left : self.right]


@dataclass(frozen=True)
class AugmentationParams:
    """Sampled parameters of the augmentation of one sample.

    Attributes:
        color_draws: four random numbers in 0..1 for the color jitter.
        size: height and width that the image is resized to.
        degrees: rotation after resizing, counter-clockwise.
        window: part of the resized and rotated image that is cropped; smaller than the crop where the image is.
        sigma: standard deviation of the blur in pixels; None for no blur.
        flip: whether the padded crop is flipped left to right.
    """

    color_draws: NDArray[np.float64]
    size: tuple[int, int]
    degrees: float
    window: Window
    sigma: float | None
    flip: bool


def compute_color_factors(jitter: ColorJitter, draws: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the factors of brightness, contrast and saturation, and the shift of hue.

    Args:
        jitter: ranges of the changes.
        draws: random numbers in 0..1, float64 [B, 4].

    Returns:
        Three factors and a shift in turns, float64 [B, 4].
    """
    ranges = np.array((jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue))
    return (1.0, 1.0, 1.0, 0.0) + ranges * (2 * draws - 1)
