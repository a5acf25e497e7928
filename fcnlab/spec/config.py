"""The types of everything that YAML can say.

All are frozen and refuse unknown keys. Two rules keep the identity of trials stable as the project grows
(see `fcnlab.spec.trial`): a field that only documents is declared with `Doc`, and **a default never changes**,
because values at their default are left out of a trial's canonical form. New behaviour gets a new value.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Whole = Annotated[int, Field(strict=True, ge=0)]
Count = Annotated[int, Field(strict=True, ge=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, le=1)]


def Doc(default: Any = ...) -> Any:  # noqa: N802 - reads as a kind of Field
    """A field that documents and never enters a trial's identity."""
    return Field(default=default, json_schema_extra={"documents": True})


class Config(BaseModel):
    """Base of all configuration: frozen, without unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def content(self) -> dict[str, Any]:
        """What this configuration says, as plain values: without documentation and without defaults."""
        fields = type(self).model_fields
        given = {
            name: getattr(self, name)
            for name, field in fields.items()
            if field.json_schema_extra != {"documents": True} and getattr(self, name) != field.default
        }
        return {name: v.content() if isinstance(v, Config) else _plain(v) for name, v in given.items()}


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


class Entry(Config):
    """A named thing in the catalogue."""

    about: str = Doc("")


class Backbone(Entry):
    """A timm feature extractor and where its weights come from.

    `weights` is `scratch`, `timm` (the pretrained weights that belong to the timm name, by its tag) or the path
    of a local `.safetensors` or `.pth` state dict, looked up in the lab and then under the data root.
    """

    timm: str
    weights: Annotated[str, Field(pattern=r"^(scratch|timm|.+\.(safetensors|pth|pt))$")] = "scratch"
    reductions: tuple[Count, ...] = Doc((2, 4, 8, 16, 32))

    @property
    def weights_file(self) -> str | None:
        """The local file that the weights come from, if they come from one."""
        return None if self.weights in ("scratch", "timm") else self.weights


class Head(Entry):
    """A head of the FCN family: scores at stride 32, and skips down to `stride` fused by sum."""

    type: Literal["skip"]
    stride: Literal[32, 16, 8]

    @property
    def needs(self) -> tuple[int, ...]:
        """The reductions of the backbone that this head reads, shallowest first."""
        return tuple(r for r in (8, 16, 32) if r >= self.stride)


class Upsampler(Entry):
    """A transposed convolution of kernel 2s, stride s, padding s/2, and how it starts."""

    start: Literal["bilinear", "random"]
    learned: bool = True
    channels: Literal["dense", "per_class"] = "dense"
    bias: bool = False

    @model_validator(mode="after")
    def _fixed_random_is_no_upsampler(self) -> Upsampler:
        if not self.learned and self.start == "random":
            raise ValueError("a fixed upsampler (learned: false) cannot start at random; use start: bilinear")
        return self


class Variant(Config):
    """One FCN architecture: backbone + head + upsampler."""

    backbone: Backbone
    head: Head
    upsampler: Upsampler


class NamedVariant(Entry):
    """A variant in the catalogue, by the names of its parts."""

    backbone: str
    head: str
    upsampler: str


class Splits(Config):
    """Which split of the dataset serves which purpose.

    The epoch may be selected on `val`; the figure is reported on `test`, and on `val` where no `test` exists.
    """

    train: str = "train"
    val: str = "val"
    test: str | None = None


class Size(Config):
    """Height and width in pixels."""

    height: Count
    width: Count


class ShapesOptions(Config):
    """How many scenes each split of `shapes` has, how large they are, and the seed they are drawn from."""

    train: Count = 240
    val: Count = 60
    test: Count = 120
    height: Annotated[int, Field(strict=True, ge=32, le=1024)] = 96
    width: Annotated[int, Field(strict=True, ge=32, le=1024)] = 128
    seed: Whole = 0


class Dataset(Entry):
    """Images, labels, splits, and the size at which its costs are stated.

    `folder` is where its files lie below the data root; generated datasets have none.
    """

    type: Literal["shapes", "camvid", "voc2012"]
    folder: str | None = None
    options: ShapesOptions = ShapesOptions()
    splits: Splits = Splits()
    nominal: Size = Doc()

    @model_validator(mode="after")
    def _files_or_options(self) -> Dataset:
        if self.type == "shapes" and self.folder is not None:
            raise ValueError("shapes is generated and takes no 'folder'")
        if self.type != "shapes" and (self.folder is None or self.options != ShapesOptions()):
            raise ValueError(f"a dataset of type {self.type} takes a 'folder' and no 'options'")
        return self


class Sgd(Config):
    """Stochastic gradient descent, as `torch.optim.SGD`."""

    name: Literal["sgd"]
    lr: Positive
    momentum: Fraction = 0.0
    weight_decay: NonNegative = 0.0
    nesterov: bool = False


class AdamW(Config):
    """Adam with decoupled weight decay, as `torch.optim.AdamW`."""

    name: Literal["adamw"]
    lr: Positive
    weight_decay: NonNegative = 0.01


class Schedule(Config):
    """The factor on the learning rate over the run: `constant`, `poly` (power) or `cosine`, after a warm-up."""

    name: Literal["constant", "poly", "cosine"] = "constant"
    power: Positive = 0.9
    warmup_epochs: NonNegative = 0.0


class Loss(Config):
    """Cross entropy over the pixels that count, and how it is reduced.

    `pixel_mean` is the mean over all counted pixels of the batch. `image_mean_sum` is the d2l chapter's: the mean
    over each image's counted pixels, summed over the batch, so that the gradient grows with the batch.
    """

    name: Literal["cross_entropy"] = "cross_entropy"
    reduction: Literal["pixel_mean", "image_mean_sum"] = "pixel_mean"


class Recipe(Entry):
    """How a variant is trained: optimiser, schedule, epochs, batch, crop, augmentation, loss, precision.

    `precision: auto` is bf16 autocast where the hardware multiplies bf16 natively, and fp32 elsewhere; which one
    it was stands in the record. `scale` is the range of the random scale before the crop.
    """

    epochs: Count
    batch: Count
    crop: Size
    scale: tuple[Positive, Positive] | None = None
    flip: Fraction = 0.0
    optimizer: Annotated[Sgd | AdamW, Field(discriminator="name")]
    schedule: Schedule = Schedule()
    loss: Loss = Loss()
    precision: Literal["fp32", "bf16", "auto"] = "fp32"
    validate_every: Count = 1

    @model_validator(mode="after")
    def _scale_is_a_range(self) -> Recipe:
        if self.scale is not None and self.scale[0] > self.scale[1]:
            raise ValueError(f"scale must run from small to large, not from {self.scale[0]} to {self.scale[1]}")
        return self
