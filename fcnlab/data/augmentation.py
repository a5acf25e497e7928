"""Augmentation: random scale, rotation, crop, padding and flip of image and label, and color jitter and blur of images.

Random numbers depend only on the seed, the epoch and the sample, so they are the same for all cells of a grid and for
any number of workers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms.v2.functional import adjust_brightness, adjust_contrast, adjust_hue, adjust_saturation

from fcnlab.config.augmentation import ColorJitter, GaussianBlur
from fcnlab.config.recipe import Recipe
from fcnlab.constants import IGNORE_INDEX
from fcnlab.data.windows import blur_image, resize_image, resize_label, rotate_image, rotate_label
from fcnlab.kernels.inputs import AugmentationParams, DecodedSample, Window

TRIES = 10
"""Maximum number of repeated crops for `cat_max_ratio`, as in mmsegmentation."""


def jitter_colors(image: Tensor, jitter: ColorJitter, draws: NDArray[np.float64]) -> Tensor:
    """Change the colors of an image by torchvision's operators, which round to uint8 after each change.

    Args:
        image: uint8 [3, H, W].
        jitter: ranges of the changes.
        draws: four random numbers in 0..1.

    Returns:
        The changed image, or the same tensor if nothing changes.
    """
    brightness, contrast, saturation, hue = 2 * draws - 1
    if jitter.brightness:
        image = adjust_brightness(image, 1 + jitter.brightness * brightness)
    if jitter.contrast:
        image = adjust_contrast(image, 1 + jitter.contrast * contrast)
    if jitter.saturation:
        image = adjust_saturation(image, 1 + jitter.saturation * saturation)
    if jitter.hue:
        image = adjust_hue(image, jitter.hue * hue)
    return image


@dataclass(frozen=True)
class Augmentation:
    """Augmentation of a training sample: color jitter, scale, rotation, crop, blur, padding and flip, in this order.

    Attributes:
        crop: height and width of the result.
        scale: range of the random factor of height and width, sampled log-uniformly; None keeps the size.
        flip: probability of a left-right flip.
        fill: value of padded pixels by channel: the mean color, which becomes about zero when it is normalized.
        jitter: random change of colors, only for images of three channels.
        cat_max_ratio: maximum fraction of one class among the pixels of a crop that are not ignored; other crops are
            sampled again, up to `TRIES` times. None accepts every crop.
        rotate: maximum rotation about the center in degrees, in both directions.
        blur: random blur of the crop; None for no blur.
    """

    crop: tuple[int, int]
    scale: tuple[float, float] | None
    flip: float
    fill: tuple[int, ...]
    jitter: ColorJitter = field(default_factory=ColorJitter)
    cat_max_ratio: float | None = None
    rotate: float = 0.0
    blur: GaussianBlur | None = None

    def __call__(self, sample: DecodedSample, rng: np.random.Generator) -> DecodedSample:
        """Return an augmented copy of a sample.

        Args:
            sample: the sample.
            rng: source of all random numbers.

        Returns:
            Image [C, *crop] and label [*crop], uint8.
        """
        image = sample.image.new_empty(*self.crop, len(self.fill)).permute(2, 0, 1)
        label = sample.label.new_empty(self.crop)
        self.write(sample, self.sample_params_for_label(sample.label, rng), image, label)
        return DecodedSample(image, label)

    def sample_params_for_label(self, label: Tensor, rng: np.random.Generator) -> AugmentationParams:
        """Sample the parameters of a sample by its label.

        Args:
            label: uint8 [H, W]; on the CPU if `cat_max_ratio` is set.
            rng: source of all random numbers.
        """
        height, width = label.shape
        return self.sample_params((height, width), rng, label)

    def sample_params(
        self, extent: tuple[int, int], rng: np.random.Generator, label: Tensor | None = None
    ) -> AugmentationParams:
        """Sample the parameters of a sample of known size.

        Args:
            extent: height and width of the sample.
            rng: source of all random numbers.
            label: label [H, W] on the CPU; required if `cat_max_ratio` is set, and not used otherwise.
        """
        # All numbers are always sampled, so that recipes share the numbers of their common steps. Numbers of new steps
        # come after all others, and those of unknown count come last.
        numbers = rng.random(11)
        factor, top, left, mirror = numbers[:4]
        turn, blurred, softness = numbers[8:]
        size = self._size(extent, factor)
        degrees = self.rotate * float(2 * turn - 1)
        window = self._window(size, top, left)
        if self.cat_max_ratio is not None:
            assert label is not None, "cat_max_ratio depends on the label"
            window = self._retry_window(label, size, degrees, window, self.cat_max_ratio, rng)
        return AugmentationParams(
            color_draws=numbers[4:8],
            size=size,
            degrees=degrees,
            window=window,
            sigma=self._sigma(blurred, softness),
            flip=bool(mirror < self.flip),
        )

    def _size(self, extent: tuple[int, int], draw: float) -> tuple[int, int]:
        height, width = extent
        if self.scale is None:
            return height, width
        low, high = self.scale
        factor = low * (high / low) ** draw
        return max(1, round(factor * height)), max(1, round(factor * width))

    def _sigma(self, blurred: float, draw: float) -> float | None:
        """Return the standard deviation of the blur by two random numbers; None for no blur."""
        if self.blur is None or blurred >= self.blur.probability:
            return None
        low, high = self.blur.sigma
        return low + (high - low) * draw

    def _window(self, size: tuple[int, int], top: float, left: float) -> Window:
        """Return a crop by two random numbers; it spans the whole image along axes that are shorter than the crop."""
        room = [max(0, extent - crop) for extent, crop in zip(size, self.crop, strict=True)]
        height, width = (min(extent, crop) for extent, crop in zip(size, self.crop, strict=True))
        return Window(int(top * (room[0] + 1)), int(left * (room[1] + 1)), height, width)

    def _retry_window(
        self,
        label: Tensor,
        size: tuple[int, int],
        degrees: float,
        window: Window,
        most: float,
        rng: np.random.Generator,
    ) -> Window:
        """Return the window, or another random one if its most frequent class exceeds `most`."""
        for _ in range(TRIES):
            if _largest_share(_label(label, size, degrees, window)) <= most:
                break
            window = self._window(size, *rng.random(2))
        return window

    def write(self, sample: DecodedSample, params: AugmentationParams, image: Tensor, label: Tensor) -> None:
        """Write an augmented sample into an image and a label; the sample itself is not changed.

        Args:
            sample: the sample.
            params: sampled parameters.
            image: uint8 [C, *crop] on the device of the sample.
            label: uint8 [*crop] on the device of the sample.
        """
        shown, _ = self.crop_sample(*self.prepare(sample, params))
        height, width = shown.label.shape
        if (height, width) != self.crop:  # small images are padded
            for plane, level in zip(image, self.fill, strict=True):
                plane.fill_(level)
            label.fill_(IGNORE_INDEX)
        # Padding is at the bottom and at the right; after a flip, at the left.
        within = Window(0, self.crop[1] - width if params.flip else 0, height, width)
        within.crop(image).copy_(shown.image.flip(-1) if params.flip else shown.image)
        within.crop(label).copy_(shown.label.flip(-1) if params.flip else shown.label)

    def prepare(self, sample: DecodedSample, params: AugmentationParams) -> tuple[DecodedSample, AugmentationParams]:
        """Apply color jitter, rotation and blur; return the sample and the remaining parameters.

        Args:
            sample: the sample.
            params: sampled parameters.
        """
        sample = DecodedSample(jitter_colors(sample.image, self.jitter, params.color_draws), sample.label)
        return self.crop_sample(sample, params) if params.degrees or params.sigma is not None else (sample, params)

    def crop_sample(
        self, sample: DecodedSample, params: AugmentationParams
    ) -> tuple[DecodedSample, AugmentationParams]:
        """Apply all steps but color jitter, padding and flip; return the crop and the remaining parameters.

        Args:
            sample: the sample.
            params: sampled parameters.
        """
        size, degrees, window = params.size, params.degrees, params.window
        image = _image(sample.image, size, degrees, window, self.fill)
        if params.sigma is not None:
            image = blur_image(image, params.sigma)
        shown = window.height, window.width
        left = replace(params, size=shown, degrees=0.0, window=Window(0, 0, *shown), sigma=None)
        return DecodedSample(image, _label(sample.label, size, degrees, window)), left


def build_augmentation(recipe: Recipe, mean: Sequence[float]) -> Augmentation:
    """Build the augmentation of a recipe.

    Args:
        recipe: configuration of the training.
        mean: mean of each channel, 0..1; the color of padding. Colors are only changed in images of three channels.
    """
    return Augmentation(
        crop=(recipe.crop.height, recipe.crop.width),
        scale=recipe.scale,
        flip=recipe.flip,
        fill=tuple(round(255 * value) for value in mean),
        jitter=recipe.jitter if len(mean) == 3 else ColorJitter(),
        cat_max_ratio=recipe.cat_max_ratio,
        rotate=recipe.rotate,
        blur=recipe.blur,
    )


def _image(image: Tensor, size: tuple[int, int], degrees: float, window: Window, fill: tuple[int, ...]) -> Tensor:
    if not degrees:
        return resize_image(image, size, window)
    return rotate_image(resize_image(image, size, Window(0, 0, *size)), degrees, window, fill)


def _label(label: Tensor, size: tuple[int, int], degrees: float, window: Window) -> Tensor:
    if not degrees:
        return resize_label(label, size, window)
    return rotate_label(resize_label(label, size, Window(0, 0, *size)), degrees, window)


def _largest_share(label: Tensor) -> float:
    """Return the fraction of the most frequent class among the pixels that are not ignored; 1 if all are ignored."""
    counts = torch.bincount(label.flatten(), minlength=IGNORE_INDEX + 1)[:IGNORE_INDEX]
    counted = int(counts.sum())
    return int(counts.max()) / counted if counted else 1.0
