"""Configuration of the augmentation of a recipe."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from fcnlab.config.base import Config, Fraction
from fcnlab.config.custom import Custom

Sigma = Annotated[float, Field(strict=True, gt=0, le=100)]


class CustomTransform(Custom):
    """Configuration of a transform from the user's own package or lab."""


class ColorJitter(Config):
    """Configuration of random color changes, those of torchvision's `ColorJitter` in the order of the fields.

    Attributes:
        brightness: factors within 1 ± this value.
        contrast: factors within 1 ± this value, about the mean of the whole image.
        saturation: factors within 1 ± this value.
        hue: shifts within ± this value, in turns of the color wheel.
    """

    brightness: Fraction = 0.0
    contrast: Fraction = 0.0
    saturation: Fraction = 0.0
    hue: Annotated[float, Field(strict=True, ge=0, le=0.5)] = 0.0

    @property
    def active(self) -> bool:
        """True if any color changes."""
        return any((self.brightness, self.contrast, self.saturation, self.hue))


class GaussianBlur(Config):
    """Configuration of random blur.

    Attributes:
        probability: probability of blurring a crop.
        sigma: range of the standard deviation in pixels, sampled uniformly.
    """

    probability: Annotated[float, Field(strict=True, gt=0, le=1)]
    sigma: tuple[Sigma, Sigma] = (0.1, 2.0)

    @model_validator(mode="after")
    def _check_range(self) -> GaussianBlur:
        if self.sigma[0] > self.sigma[1]:
            raise ValueError(f"sigma must increase, not {self.sigma[0]} to {self.sigma[1]}")
        return self
