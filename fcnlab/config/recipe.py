"""Types of a training recipe: optimizer, schedule, loss, augmentation."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from fcnlab.config.base import Config, Count, Entry, Fraction, NonNegative, Positive
from fcnlab.config.dataset import Size


class Sgd(Config):
    """Stochastic gradient descent, as `torch.optim.SGD`."""

    name: Literal["sgd"]
    lr: Positive
    momentum: Fraction = 0.0
    weight_decay: NonNegative = 0.0
    nesterov: bool = False

    @model_validator(mode="after")
    def _nesterov_needs_momentum(self) -> Sgd:
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov needs a momentum above 0")
        return self


Betas = tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]]


class AdamW(Config):
    """Adam with decoupled weight decay, as `torch.optim.AdamW`."""

    name: Literal["adamw"]
    lr: Positive
    weight_decay: NonNegative = 0.01
    betas: Betas = (0.9, 0.999)


class Adam(Config):
    """Adam and its kin, as torch.optim has them by these names in its spelling."""

    name: Literal["adam", "adamax", "nadam", "radam"]
    lr: Positive
    weight_decay: NonNegative = 0.0
    betas: Betas = (0.9, 0.999)


class RmsProp(Config):
    """`torch.optim.RMSprop`."""

    name: Literal["rmsprop"]
    lr: Positive
    momentum: Fraction = 0.0
    alpha: Fraction = 0.99
    weight_decay: NonNegative = 0.0


class Schedule(Config):
    """The factor on the learning rate over the run, after a linear warm-up.

    `constant`; `poly` falls as (1 - t)^power; `cosine` as half a wave; `step` multiplies by `gamma` at each of the
    `milestones`, parts of the run between 0 and 1.
    """

    name: Literal["constant", "poly", "cosine", "step"] = "constant"
    power: Positive = 0.9
    warmup_epochs: NonNegative = 0.0
    milestones: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = (0.6, 0.85)
    gamma: Annotated[float, Field(gt=0, lt=1)] = 0.1


class LrFactors(Config):
    """Factors on the learning rate by part of the network; a bias has its part's factor times `bias`."""

    backbone: NonNegative = 1.0
    head: NonNegative = 1.0
    upsampler: NonNegative = 1.0
    bias: NonNegative = 1.0


class Ohem(Config):
    """Online hard example mining: pixels whose class has a probability below `threshold` count.

    Of the counted pixels of a batch at least the fraction `keep` with the lowest probabilities is kept.
    Shrivastava et al., CVPR 2016.
    """

    threshold: Annotated[float, Field(gt=0, lt=1)] = 0.7
    keep: Annotated[float, Field(gt=0, le=1)] = 0.0625


class Loss(Config):
    """Cross entropy over the pixels that count, how it is weighted and reduced, and what is added to it.

    `pixel_mean` is the mean over all counted pixels of the batch. `image_mean_sum` is the d2l chapter's: the mean
    over each image's counted pixels, summed over the batch, so that the gradient grows with the batch. `pixel_sum` is
    the paper's: the sum over all pixels.

    `focal` is the exponent of the focal loss (0: plain cross entropy). `weight` is that of the cross entropy, `dice`,
    `lovasz` and `auxiliary` those of what is added to it; `{weight: 0, dice: 1}` is a pure Dice loss.
    """

    name: Literal["cross_entropy"] = "cross_entropy"
    reduction: Literal["pixel_mean", "image_mean_sum", "pixel_sum"] = "pixel_mean"
    class_weights: Literal["none", "median_frequency"] = "none"
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    focal: NonNegative = 0.0
    ohem: Ohem | None = None
    weight: NonNegative = 1.0
    dice: NonNegative = 0.0
    lovasz: NonNegative = 0.0
    auxiliary: NonNegative = 0.4

    @model_validator(mode="after")
    def _fits_together(self) -> Loss:
        if not (self.weight or self.dice or self.lovasz):
            raise ValueError("weight, dice and lovasz are all 0: nothing would be learned")
        if self.class_weights != "none" and not self.weight:
            raise ValueError("class_weights weigh the cross entropy, whose weight is 0")
        if self.ohem is not None and self.reduction != "pixel_mean":
            raise ValueError("ohem goes with reduction: pixel_mean alone")
        if self.focal and self.label_smoothing:
            raise ValueError("focal and label_smoothing do not go together; choose one")
        return self


class ColourJitter(Config):
    """Random brightness, contrast, saturation, each by a factor within 1 ± the value; hue by ± turns of the wheel."""

    brightness: Fraction = 0.0
    contrast: Fraction = 0.0
    saturation: Fraction = 0.0
    hue: Annotated[float, Field(ge=0, le=0.5)] = 0.0


class GaussianBlur(Config):
    """A random blur: how probable it is, and the range of its sigma in pixels of the crop, drawn uniformly."""

    probability: Annotated[float, Field(gt=0, le=1)] = 0.5
    sigma: tuple[Positive, Positive] = (0.1, 2.0)

    @model_validator(mode="after")
    def _from_small_to_large(self) -> GaussianBlur:
        if self.sigma[0] > self.sigma[1]:
            raise ValueError(f"sigma must run from small to large, not from {self.sigma[0]} to {self.sigma[1]}")
        return self


class Recipe(Entry):
    """How a variant is trained.

    `batch_size` is what one step of the optimiser sees; `grad_accum_steps` cuts it into equal parts that go through
    one after the other. `scale` is the range of the random scale before the crop. `cat_max_ratio`, as
    mmsegmentation calls it, is the share of a crop's counted pixels above which a class makes the crop be drawn
    again, up to ten times. `rotate` is by how many degrees an image is rotated at most, either way. `batch_norm` is
    that of the backbone: `train`, `eval` (its running statistics stay, its weights learn) or `frozen` (nothing of
    it learns). `freeze` keeps the backbone up to the map of this stride, or all of it, as it starts. `decay` says
    what weight decay falls on: `all`, or `weights` and so neither norms nor biases. `ema` is the decay of an
    exponential moving average of the weights, which is then what is scored. `grad_clip_norm` bounds the norm of the
    gradient.

    `score_scale` is by what factor an image is resized before the network scores it; the scores come back to its own
    size, where they meet labels that nothing has touched.

    `fused: auto` takes the loss of the scores before their last upsampling where that can be, which is several times
    faster and gives the same figures but for rounding; `off` upsamples first, as the papers do.

    `activation_checkpointing` saves memory and costs time: the backbone up to the map of this stride, or all of it, is
    computed again in the backward pass instead of being kept. The figures stay the same.

    `precision` is that of the forward pass. `fp32` is IEEE float32 everywhere; `tf32` lets CUDA use TF32 in float32
    convolutions and matrix products, and is fp32 elsewhere; `bf16` and `fp16` are autocast, fp16 with a scaled loss.
    `auto` is bf16 where the hardware multiplies bf16 natively, fp16 on older GPUs with tensor cores, and fp32
    elsewhere. The record names the one that was used.

    `deterministic` makes training on CUDA repeat bit for bit, with slower algorithms; on the CPU it always does.

    `compile` compiles the network for training on CUDA with `torch.compile`: steps are shorter, and the first one takes
    half a minute longer. The figures stay the same but for rounding. On the CPU it does nothing.
    """

    renamed: ClassVar[dict[str, str]] = Entry.renamed | {
        "batch": "batch_size",
        "accumulate": "grad_accum_steps",
        "clip_norm": "grad_clip_norm",
        "recompute": "activation_checkpointing",
    }

    epochs: Count
    batch_size: Count
    crop: Size
    scale: tuple[Positive, Positive] | None = None
    flip: Fraction = 0.0
    jitter: ColourJitter = ColourJitter()
    cat_max_ratio: Annotated[float, Field(gt=0, lt=1)] | None = None
    rotate: Annotated[float, Field(ge=0, le=180)] = 0.0
    blur: GaussianBlur | None = None
    optimizer: Annotated[Sgd | AdamW | Adam | RmsProp, Field(discriminator="name")]
    lr_factors: LrFactors = LrFactors()
    decay: Literal["all", "weights"] = "all"
    schedule: Schedule = Schedule()
    loss: Loss = Loss()
    grad_accum_steps: Count = 1
    grad_clip_norm: Positive | None = None
    ema: Annotated[float, Field(gt=0, lt=1)] | None = None
    batch_norm: Literal["train", "eval", "frozen"] = "train"
    freeze: Literal["none", "stride2", "stride4", "stride8", "stride16", "backbone"] = "none"
    precision: Literal["fp32", "tf32", "bf16", "fp16", "auto"] = "fp32"
    deterministic: bool = False
    compile: bool = False
    fused: Literal["auto", "off"] = "auto"
    activation_checkpointing: Literal["none", "stride2", "stride4", "stride8", "stride16", "backbone"] = "none"
    score_scale: Annotated[float, Field(ge=0.1, le=10)] = 1.0
    validate_every: Count = 1

    @model_validator(mode="after")
    def _fits_together(self) -> Recipe:
        if self.scale is not None and self.scale[0] > self.scale[1]:
            raise ValueError(f"scale must run from small to large, not from {self.scale[0]} to {self.scale[1]}")
        if self.grad_accum_steps > 1 and (self.loss.dice or self.loss.lovasz) and self.loss.reduction != "pixel_mean":
            raise ValueError("grad_accum_steps with dice or lovasz goes with loss.reduction: pixel_mean alone")
        if self.batch_size % self.grad_accum_steps:
            raise ValueError(
                f"grad_accum_steps must divide batch_size; {self.grad_accum_steps} does not divide {self.batch_size}"
            )
        return self
