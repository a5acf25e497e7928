"""Configuration of the optimizer, its learning rates and their schedule."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from fcnlab.config.base import Config, Fraction, NonNegative, Positive, Truth

Betas = tuple[Annotated[float, Field(strict=True, ge=0, lt=1)], Annotated[float, Field(strict=True, ge=0, lt=1)]]


class Sgd(Config):
    """Configuration of `torch.optim.SGD`."""

    name: Literal["sgd"]
    lr: Positive
    momentum: Fraction = 0.0
    weight_decay: NonNegative = 0.0
    nesterov: Truth = False

    @model_validator(mode="after")
    def _check_nesterov(self) -> Sgd:
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov needs a momentum above 0")
        return self


class AdamW(Config):
    """Configuration of `torch.optim.AdamW`."""

    name: Literal["adamw"]
    lr: Positive
    weight_decay: NonNegative = 0.01
    betas: Betas = (0.9, 0.999)


class Adam(Config):
    """Configuration of `torch.optim.Adam`, `Adamax`, `NAdam` or `RAdam`."""

    name: Literal["adam", "adamax", "nadam", "radam"]
    lr: Positive
    weight_decay: NonNegative = 0.0
    betas: Betas = (0.9, 0.999)


class RmsProp(Config):
    """Configuration of `torch.optim.RMSprop`."""

    name: Literal["rmsprop"]
    lr: Positive
    momentum: Fraction = 0.0
    alpha: Fraction = 0.99
    weight_decay: NonNegative = 0.0


class Schedule(Config):
    """Configuration of the learning rate schedule, after a linear warm-up.

    Attributes:
        name: `constant`; `poly`, (1 - t)^power; `cosine`, half a wave; `step`, times `gamma` at each milestone.
        power: exponent of `poly`.
        warmup_epochs: length of the warm-up.
        milestones: milestones of `step`, as fractions of the training.
        gamma: factor of `step`.
    """

    name: Literal["constant", "poly", "cosine", "step"] = "constant"
    power: Positive = 0.9
    warmup_epochs: NonNegative = 0.0
    milestones: tuple[Annotated[float, Field(strict=True, gt=0, lt=1)], ...] = (0.6, 0.85)
    gamma: Annotated[float, Field(strict=True, gt=0, lt=1)] = 0.1


class LrFactors(Config):
    """Factors on the learning rate.

    Attributes:
        backbone: factor of the backbone.
        head: factor of the head without its upsamplers.
        upsampler: factor of the upsamplers.
        bias: additional factor of the biases of convolutions and linear layers.
    """

    backbone: NonNegative = 1.0
    head: NonNegative = 1.0
    upsampler: NonNegative = 1.0
    bias: NonNegative = 1.0
