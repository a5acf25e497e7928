"""Configuration of the loss of a recipe."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from fcnlab.config.base import Config, NonNegative, Positive
from fcnlab.config.custom import Custom

Reduction = Literal["pixel_mean", "image_mean_sum", "pixel_sum"]
"""Reduction of the cross entropies of all pixels to a scalar; see `Loss`."""


class Ohem(Config):
    """Configuration of online hard example mining: Shrivastava et al. (CVPR 2016).

    Attributes:
        threshold: pixels whose class has a probability below it are kept.
        keep: fraction of the labeled pixels of a batch that is kept at least, those of the lowest probabilities.
    """

    threshold: Annotated[float, Field(strict=True, gt=0, lt=1)] = 0.7
    keep: Annotated[float, Field(strict=True, gt=0, le=1)] = 0.0625


class CustomLoss(Custom):
    """Configuration of a term of the loss from the user's own package or lab.

    Attributes:
        type: name of the class among the extensions (see `docs/extending.md`).
        options: keyword arguments of the class.
        weight: weight of the term.
    """

    weight: Positive = 1.0


class Loss(Config):
    """Configuration of the loss over all labeled pixels.

    Attributes:
        name: name of the base loss.
        reduction: `pixel_mean`, the mean over the batch's pixels; `image_mean_sum`, the mean over each image's pixels,
            summed over the batch (d2l, chapter 14.11); `pixel_sum`, the sum over all pixels (Long et al., CVPR 2015).
        class_weights: class weights of the cross entropy.
        label_smoothing: label smoothing of the cross entropy.
        focal: exponent of the focal loss; 0 is plain cross entropy.
        ohem: online hard example mining.
        weight: weight of the cross entropy; `{weight: 0, dice: 1}` is a pure Dice loss.
        dice: weight of the Dice loss.
        lovasz: weight of the Lovász-Softmax loss.
        custom: an additional term of the user's own package or lab.
        auxiliary: weight of the loss of an auxiliary head.
    """

    name: Literal["cross_entropy"] = "cross_entropy"
    reduction: Reduction = "pixel_mean"
    class_weights: Literal["none", "median_frequency"] = "none"
    label_smoothing: Annotated[float, Field(strict=True, ge=0, lt=1)] = 0.0
    focal: NonNegative = 0.0
    ohem: Ohem | None = None
    weight: NonNegative = 1.0
    dice: NonNegative = 0.0
    lovasz: NonNegative = 0.0
    custom: CustomLoss | None = None
    auxiliary: NonNegative = 0.4

    @field_validator("name", mode="before")
    @classmethod
    def _explain_terms(cls, name: Any) -> Any:
        if name in ("focal", "dice", "lovasz", "ohem"):
            raise ValueError(f"{name} is not a base loss but a term of its own; set recipe.loss.{name}")
        return name

    @property
    def batch_terms(self) -> tuple[str, ...]:
        """The terms that depend on all pixels of a batch, so that they differ if they are computed from its parts."""
        return tuple(term for term in ("dice", "lovasz", "custom", "ohem") if getattr(self, term))

    @model_validator(mode="after")
    def _check_combination(self) -> Loss:
        if not (self.weight or self.dice or self.lovasz or self.custom):
            raise ValueError("weight, dice and lovasz are all 0; set one of them above 0, or custom")
        if self.class_weights != "none" and not self.weight:
            raise ValueError("class_weights apply to the cross entropy, whose weight is 0")
        if self.ohem is not None and self.reduction != "pixel_mean":
            raise ValueError("ohem requires reduction: pixel_mean")
        if self.focal and self.label_smoothing:
            raise ValueError("focal and label_smoothing cannot be combined; choose one")
        return self
