"""Configuration of a training recipe."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, ValidationError, ValidatorFunctionWrapHandler, WrapValidator, model_validator

from fcnlab.config.augmentation import ColorJitter, CustomTransform, GaussianBlur
from fcnlab.config.base import Config, Count, Entry, Fraction, Positive, Truth
from fcnlab.config.dataset import Size
from fcnlab.config.loss import Loss
from fcnlab.config.optimizer import Adam, AdamW, LrFactors, RmsProp, Schedule, Sgd
from fcnlab.constants import Precision

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
        epochs: number of epochs. After each, a trial can be validated and interrupted.
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
        if self.schedule.warmup_epochs > self.epochs:
            raise ValueError(
                f"schedule.warmup_epochs is a number of epochs, at most `epochs`; {self.schedule.warmup_epochs:g} is "
                f"more than {self.epochs}"
            )
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
