"""Configuration of a training recipe: optimizer, schedule, loss, augmentation."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    Field,
    StrictInt,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    field_validator,
    model_validator,
)

from fcnlab.config.base import Config, Count, Entry, Finite, Fraction, NonNegative, Positive, Truth
from fcnlab.config.dataset import Size
from fcnlab.constants import Precision

Betas = tuple[Annotated[float, Field(strict=True, ge=0, lt=1)], Annotated[float, Field(strict=True, ge=0, lt=1)]]
Sigma = Annotated[float, Field(strict=True, gt=0, le=100)]
Factor = Annotated[float, Field(strict=True, ge=0.01, le=100)]


def _explain_train_size(value: Any, validate: ValidatorFunctionWrapHandler) -> Any:
    try:
        return validate(value)
    except ValidationError:
        shown = str(value).lower() if isinstance(value, bool) else value
        raise ValueError(f"expected a fraction above 0 up to 1.0, or a number of images from 2, not {shown}") from None


TrainSize = Annotated[
    # 1 is the fraction 1.0, all images.
    Annotated[int, Field(strict=True, ge=2, lt=2**31)] | Annotated[float, Field(strict=True, gt=0, le=1)],
    WrapValidator(_explain_train_size),
]
"""Number of training images, or their fraction of the training split."""

Depth = Literal["none", "stride2", "stride4", "stride8", "stride16", "backbone"]
"""Part of the backbone: nothing, the layers up to the map of a stride, or all of it."""

Reduction = Literal["pixel_mean", "image_mean_sum", "pixel_sum"]
"""Reduction of the cross entropies of all pixels to a scalar; see `Loss`."""


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


class Ohem(Config):
    """Configuration of online hard example mining: Shrivastava et al. (CVPR 2016).

    Attributes:
        threshold: pixels whose class has a probability below it are kept.
        keep: fraction of the labeled pixels of a batch that is kept at least, those of the lowest probabilities.
    """

    threshold: Annotated[float, Field(strict=True, gt=0, lt=1)] = 0.7
    keep: Annotated[float, Field(strict=True, gt=0, le=1)] = 0.0625


class Custom(Config):
    """Configuration of a class of the user's own package or lab.

    Attributes:
        type: name of the class among the extensions (see `docs/extending.md`).
        options: keyword arguments of the class.
    """

    type: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
    options: dict[str, bool | int | Finite | str | tuple[StrictInt | Finite, ...]] = {}  # noqa: RUF012 - pydantic copies defaults


class CustomLoss(Custom):
    """Configuration of a term of the loss from the user's own package or lab.

    Attributes:
        type: name of the class among the extensions (see `docs/extending.md`).
        options: keyword arguments of the class.
        weight: weight of the term.
    """

    weight: Positive = 1.0


class CustomTransform(Custom):
    """Configuration of a transform from the user's own package or lab."""


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

    probability: Annotated[float, Field(strict=True, gt=0, le=1)] = 0.5
    sigma: tuple[Sigma, Sigma] = (0.1, 2.0)

    @model_validator(mode="after")
    def _check_range(self) -> GaussianBlur:
        if self.sigma[0] > self.sigma[1]:
            raise ValueError(f"sigma must increase, not {self.sigma[0]} to {self.sigma[1]}")
        return self


class StopOnPlateau(Config):
    """Configuration of the end of a trial whose mIoU on val no longer improves.

    Attributes:
        patience: number of validations in sequence without an improvement, after which the trial ends.
        min_delta: a mIoU is an improvement if it is more than this many points above the best before, 0 to 100.
    """

    patience: Count
    min_delta: Annotated[float, Field(strict=True, ge=0, le=100)] = 0.0


class Recipe(Entry):
    """Configuration of the training of a variant.

    Attributes:
        epochs: number of epochs, after which a trial is validated and can be interrupted.
        steps_per_epoch: optimizer steps of an epoch; by default one pass over the training images. Trainings of
            training sets of different sizes take the same number of steps with it.
        train_size: training images that are used, as in scikit-learn: their fraction of the training split, or their
            number, at least 2. Each seed samples others, and a smaller sample is part of a larger one.
        batch_size: images per optimizer step.
        crop: size of the random crops.
        scale: range of the random scale before the crop.
        flip: probability of a horizontal flip.
        jitter: random color changes, only in images of three channels.
        cat_max_ratio: sample a crop again, up to ten times, while one class has more than this fraction of its labeled
            pixels (mmsegmentation).
        rotate: largest rotation in degrees, either way.
        blur: random blur.
        transform: a transform of whole images and masks on the CPU, before all other augmentation.
        optimizer: optimizer and learning rate.
        lr_factors: factors on the learning rate by component.
        decay: parameters with weight decay: `all`, or `weights` only, without norms and biases.
        schedule: schedule of the learning rate.
        loss: base loss and additional terms.
        grad_accum_steps: micro-batches per batch.
        grad_clip_norm: bound of the norm of the gradient.
        ema: decay of an exponential moving average of the weights, which is then evaluated.
        batch_norm: mode of the backbone's batch norms: `train`; `eval`, fixed statistics; or `frozen`, fixed statistics
            and weights.
        freeze: part of the backbone that keeps its initial weights.
        precision: precision of the forward pass. `fp32` is IEEE float32; `tf32` allows TF32 on CUDA; `bf16` and `fp16`
            are autocast, fp16 with a scaled loss; `auto` is bf16 where the hardware multiplies bf16 natively (on CPUs
            if a short measurement finds it faster), fp16 on older GPUs with tensor cores, else fp32. The record names
            the one that was used.
        deterministic: train bit for bit reproducibly on CUDA too, with slower algorithms.
        compile: use `torch.compile` on CUDA: shorter steps, half a minute longer at first; equal up to rounding.
        fused: `auto` computes the loss from the scores before their last upsampling where possible, several times
            faster and equal up to rounding; `off` upsamples first.
        activation_checkpointing: part of the backbone that is computed again in the backward pass, to save memory.
        score_scale: factor by which an image is resized before prediction; scores are resized back to its own size.
        validate_every: epochs between validations.
        stop_on_plateau: end training before the last epoch once mIoU on val no longer improves. The schedule of the
            learning rate remains that of all epochs.
    """

    renamed: ClassVar[dict[str, str]] = Entry.renamed | {
        "batch": "batch_size",
        "accumulate": "grad_accum_steps",
        "clip_norm": "grad_clip_norm",
        "recompute": "activation_checkpointing",
        "early_stopping": "stop_on_plateau",
    }

    epochs: Count
    steps_per_epoch: Count | None = None
    train_size: TrainSize = 1.0
    batch_size: Count
    crop: Size
    scale: tuple[Factor, Factor] | None = None
    flip: Fraction = 0.0
    jitter: ColorJitter = ColorJitter()
    cat_max_ratio: Annotated[float, Field(strict=True, gt=0, lt=1)] | None = None
    rotate: Annotated[float, Field(strict=True, ge=0, le=180)] = 0.0
    blur: GaussianBlur | None = None
    transform: CustomTransform | None = None
    optimizer: Annotated[Sgd | AdamW | Adam | RmsProp, Field(discriminator="name")]
    lr_factors: LrFactors = LrFactors()
    decay: Literal["all", "weights"] = "all"
    schedule: Schedule = Schedule()
    loss: Loss = Loss()
    grad_accum_steps: Count = 1
    grad_clip_norm: Positive | None = None
    ema: Annotated[float, Field(strict=True, gt=0, lt=1)] | None = None
    batch_norm: Literal["train", "eval", "frozen"] = "train"
    freeze: Depth = "none"
    precision: Literal[Precision, "auto"] = "fp32"
    deterministic: Truth = False
    compile: Truth = False
    fused: Literal["auto", "off"] = "auto"
    activation_checkpointing: Depth = "none"
    score_scale: Annotated[float, Field(strict=True, ge=0.1, le=10)] = 1.0
    validate_every: Count = 1
    stop_on_plateau: StopOnPlateau | None = None

    @model_validator(mode="after")
    def _check_combination(self) -> Recipe:
        if self.scale is not None and self.scale[0] > self.scale[1]:
            raise ValueError(f"scale must increase, not {self.scale[0]} to {self.scale[1]}")
        terms = self.loss.batch_terms
        if self.grad_accum_steps > 1 and terms and self.loss.reduction != "pixel_mean":
            raise ValueError(f"grad_accum_steps with {terms[0]} requires loss.reduction: pixel_mean")
        if self.batch_size % self.grad_accum_steps:
            raise ValueError(
                f"grad_accum_steps must divide batch_size; {self.grad_accum_steps} does not divide {self.batch_size}"
            )
        return self

    def count_images(self, available: int) -> int:
        """Return the number of training images that are used.

        Args:
            available: number of images of the training split.

        Returns:
            At most `available`, unless `train_size` is a greater number of images.
        """
        if isinstance(self.train_size, int):
            return self.train_size
        return max(1, round(self.train_size * available))

    def count_steps(self, available: int) -> int:
        """Return the number of optimizer steps of an epoch.

        Args:
            available: number of images of the training split.
        """
        return self.steps_per_epoch or self.count_images(available) // self.batch_size
