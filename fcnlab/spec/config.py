"""The types of everything that YAML can say.

All are frozen and refuse unknown keys. Two rules keep the identity of trials stable as the project grows
(see `fcnlab.spec.trial`): a field that only documents is declared with `Doc`, and **a default never changes**,
because values at their default are left out of a trial's canonical form. New behaviour gets a new value.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, model_validator

from fcnlab.spec.classes import MaskValue, Named, as_said, check_values, classes_of, values_of

Whole = Annotated[int, Field(strict=True, ge=0)]
Count = Annotated[int, Field(strict=True, ge=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, le=1)]


def Doc(default: Any = ...) -> Any:  # noqa: N802 - reads as a kind of Field
    """A field that documents and never enters a trial's identity."""
    return Field(default=default, json_schema_extra={"documents": True})


def Place(default: Any = ...) -> Any:  # noqa: N802 - as Doc
    """Where files lie or how they are named: it is what they hold that enters an identity, by its fingerprint."""
    return Doc(default)


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
    return [_plain(inner) for inner in value] if isinstance(value, tuple) else value


class Entry(Config):
    """A named thing in the catalogue."""

    about: str = Doc("")


class Backbone(Entry):
    """A feature extractor, from timm or one of the paper's own nets, and where its weights come from.

    `weights` is `scratch`, `timm` (the pretrained weights that belong to the timm name, by its tag), `torchvision`
    (for the paper's nets) or the path of a local `.safetensors` or `.pth` state dict, looked up in the lab and then
    under the data root.

    `tail` adds to the deepest map what the classifier has between it and the pooling: the 1x1 convolution to 1280
    channels of MobileNetV2 and the EfficientNets, which is pretrained like the rest.
    """

    timm: str | None = None
    paper: Literal["vgg16", "alexnet", "googlenet"] | None = None
    tail: bool = False
    weights: Annotated[str, Field(pattern=r"^(scratch|timm|torchvision|.+\.(safetensors|pth|pt))$")] = "scratch"
    reductions: tuple[Count, ...] = Doc((2, 4, 8, 16, 32))

    @property
    def weights_file(self) -> str | None:
        """The local file that the weights come from, if they come from one."""
        return None if self.weights in ("scratch", "timm", "torchvision") else self.weights

    @property
    def architecture(self) -> str:
        """What people call the net, such as `resnet18.tv_in1k`."""
        return self.timm or f"{self.paper}-paper"

    @model_validator(mode="after")
    def _one_net(self) -> Backbone:
        if (self.timm is None) == (self.paper is None):
            raise ValueError("a backbone is one net: give 'timm' or 'paper', and not both")
        if self.tail and self.timm is None:
            raise ValueError(f"{self.architecture} has no 'tail'; it ends in the classifier's convolutions anyway")
        hub = "timm" if self.timm is not None else "torchvision"
        if self.weights in ("timm", "torchvision") and self.weights != hub:
            raise ValueError(f"{self.architecture} has pretrained weights of {hub}, not of {self.weights}")
        return self


Scalar = bool | int | float | str


class Head(Entry):
    """A head of the FCN family, by its `type` in the table of heads (`fcnlab.models.heads`).

    `skip` scores at stride 32, where asked for behind a layer of `hidden` channels that with `context` sees the whole
    image, and fuses skips down to `stride`; `paper` does so with the paper's padding and crops; `dilated` reads the
    deepest map of a backbone whose stride is kept at `output_stride` by dilation. `options` are what a head of one's
    own takes beside these fields, and `reads` the reductions of the backbone that it reads.
    """

    type: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
    stride: Literal[32, 16, 8, 4] | None = None
    at_once: bool = False
    fusion: Literal["sum", "concat"] = "sum"
    output_stride: Literal[8, 16, 32] = 32
    hidden: Count | None = None
    context: bool = False
    convs: Literal[1, 2, 3, 4] = 1
    concat_input: bool = False
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    auxiliary: Literal[8, 16] | None = None
    options: dict[str, Scalar] = {}
    reads: tuple[Count, ...] = Doc(())

    @property
    def needs(self) -> tuple[int, ...]:
        """The reductions of the backbone that this head reads, shallowest first."""
        if self.stride is not None:
            return tuple(r for r in (4, 8, 16, 32) if r >= self.stride)
        own = self.reads or (32,)
        return tuple(sorted({*own, self.auxiliary} - {None}))  # type: ignore[arg-type]

    @property
    def arguments(self) -> dict[str, Any]:
        """What the head's class is built with; what is at its default is left to the class."""
        return {k: v for k, v in self.content().items() if k not in ("type", "options")} | self.options

    @model_validator(mode="after")
    def _fields_of_the_type(self) -> Head:
        fields = {
            "skip": {"stride", "at_once", "fusion", "hidden", "context"},
            "paper": {"stride", "at_once"},
            "dilated": {"output_stride", "hidden", "convs", "concat_input", "dropout", "auxiliary"},
        }.get(self.type)
        if fields is None:
            return self
        strange = sorted(self.content().keys() - {"type", *fields})
        if strange:
            raise ValueError(f"a head of type {self.type} takes no '{strange[0]}'; valid: {', '.join(sorted(fields))}")
        if "stride" in fields and self.stride is None:
            raise ValueError(f"a head of type {self.type} needs a 'stride': 32, 16, 8 or 4")
        if self.type == "paper" and self.stride == 4:
            raise ValueError("the paper's nets have no stride-4 head; use 32, 16 or 8")
        if self.context and self.hidden is None:
            raise ValueError("context is read by a hidden layer; say its channels, such as hidden: 256")
        if self.at_once and self.stride == 32:
            raise ValueError("at_once scales the skips, and a head of stride 32 has none")
        if self.type == "dilated" and self.output_stride == 32:
            raise ValueError("a dilated head needs an 'output_stride' of 8 or 16")
        return self


Start = Literal["bilinear", "random", "xavier", "kaiming", "normal", "zero"]


class Stages(Config):
    """How single upsamplings start, by the stride that they lead to; None starts as the rest do."""

    to16: Start | None = None
    to8: Start | None = None
    to4: Start | None = None
    image: Start | None = None


class Upsampler(Entry):
    """What brings scores up: a transposed convolution and how it starts, or plain interpolation.

    A `transposed` one has kernel 2s, stride s, padding s/2 for a factor s. Its `channels` are `dense` (each class
    reads each class), `diagonal` (dense, but each class starts reading itself alone) or `per_class` (each class can
    only ever read itself). `interpolate` goes by the factor and stays aligned at the corner, as the learned ones do;
    `resize` stretches to the size that it leads to, as torchvision and mmsegmentation do.
    """

    type: Literal["transposed", "interpolate", "resize"] = "transposed"
    start: Start | None = None
    mode: Literal["bilinear", "nearest"] | None = None
    learned: bool = True
    channels: Literal["dense", "diagonal", "per_class"] = "dense"
    bias: bool = False
    stages: Stages = Stages()

    @property
    def starts(self) -> dict[str, Start]:
        """How each stage starts that is set apart from the rest."""
        return self.stages.content()

    @model_validator(mode="after")
    def _says_something(self) -> Upsampler:
        if self.type != "transposed":
            strange = sorted(self.content().keys() - {"type", "mode"})
            if self.mode is None:
                raise ValueError(f"an upsampler of type {self.type} needs a 'mode': bilinear or nearest")
            if strange:
                raise ValueError(f"an upsampler of type {self.type} has no weights and takes no '{strange[0]}'")
            return self
        if self.start is None:
            raise ValueError("a transposed convolution needs a 'start': bilinear, random, xavier, ...")
        if self.mode is not None:
            raise ValueError("'mode' is for type: interpolate or resize; a transposed convolution has a 'start'")
        started = {self.start, *self.starts.values()}
        if not self.learned and started != {"bilinear"}:
            other = next(iter(sorted(started - {"bilinear"})))
            raise ValueError(f"a fixed upsampler (learned: false) cannot start {other}; use start: bilinear")
        if self.channels == "diagonal" and started <= {"bilinear", "zero"}:
            raise ValueError(f"a {self.start} start is diagonal anyway; use channels: dense")
        return self


class Variant(Config):
    """One FCN architecture: backbone + head + upsampler."""

    backbone: Backbone
    head: Head
    upsampler: Upsampler

    @model_validator(mode="after")
    def _paper_heads_on_paper_nets(self) -> Variant:
        paper_net, paper_head = self.backbone.paper is not None, self.head.type == "paper"
        if paper_net and not paper_head:
            raise ValueError(
                f"the paper's {self.backbone.paper} pads its input, and only heads of type paper crop for that; "
                "use head: fcn32s-paper"
            )
        if paper_head and not paper_net:
            raise ValueError(
                "a head of type paper crops for the padding of the paper's nets; use backbone: vgg16-paper"
            )
        if paper_head and self.upsampler.type != "transposed":
            raise ValueError("a head of type paper upsamples by transposed convolution; use upsampler: bilinear")
        return self


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


class Fractions(Config):
    """A split of a folder by chance: the parts of all images that are `val` and `test`; the rest is `train`.

    The same ids and seed give the same split everywhere. With `test`, the dataset has a split of that name.
    """

    val: Annotated[float, Field(gt=0, lt=1)]
    test: Annotated[float, Field(ge=0, lt=1)] = 0.0
    seed: Whole = 0

    @model_validator(mode="after")
    def _leave_some_to_train(self) -> Fractions:
        if self.val + self.test >= 1:
            raise ValueError(f"val {self.val} and test {self.test} leave nothing to train on")
        return self


Classes = Annotated[Named, BeforeValidator(classes_of), PlainSerializer(as_said)]
MaskValues = Annotated[tuple[MaskValue, ...], BeforeValidator(values_of)]


class Dataset(Entry):
    """Images, labels, splits, and the size at which its costs are stated.

    `folder` is where the files of a dataset with a known layout lie below the data root; generated ones have none.

    A dataset of type `folder` is any pair of folders, `images` and `masks`, absolute or below the data root. `classes`
    are names in the order of the labels with the values of the mask that mean them: numbers of an 8-bit or palette
    mask, or colours of an RGB one; a plain list has the numbers 0, 1, ... Values under `ignore` do not count, nor does
    the number 255 where it is no class. The splits come from one of three: `{split}` in both folders stands for the
    split's name; `lists` are text files of ids by split, in the lab or below the data root; `fractions` divide by
    chance. `image_suffix` and `mask_suffix` are what follows the id in the names of files, before the extension.
    `unpaired: skip` leaves out images that have no mask.
    """

    type: Literal["shapes", "camvid", "voc2012", "cityscapes", "ade20k", "folder"]
    folder: str | None = None
    options: ShapesOptions = ShapesOptions()
    images: str | None = Place(None)
    masks: str | None = Place(None)
    image_suffix: str = Place("")
    mask_suffix: str = Place("")
    unpaired: Literal["refuse", "skip"] = Place("refuse")
    classes: Classes = ()
    ignore: MaskValues = ()
    lists: dict[str, str] = Place({})
    fractions: Fractions | None = None
    splits: Splits = Splits()
    nominal: Size = Doc()

    @property
    def used_splits(self) -> tuple[str, ...]:
        """The splits that serve a purpose, each once."""
        splits = (self.splits.train, self.splits.val, self.splits.test)
        return tuple(dict.fromkeys(split for split in splits if split is not None))

    @model_validator(mode="after")
    def _files_or_options(self) -> Dataset:
        if self.type == "folder":
            self._check_folder()
            return self
        own = sorted(name for name in _OF_FOLDERS if getattr(self, name) != type(self).model_fields[name].default)
        if own:
            raise ValueError(f"a dataset of type {self.type} takes no '{own[0]}'; that is for type: folder")
        if self.type == "shapes" and self.folder is not None:
            raise ValueError("shapes is generated and takes no 'folder'")
        if self.type != "shapes" and (self.folder is None or self.options != ShapesOptions()):
            raise ValueError(f"a dataset of type {self.type} takes a 'folder' and no 'options'")
        return self

    def _check_folder(self) -> None:
        if self.folder is not None or self.options != ShapesOptions():
            raise ValueError("a dataset of type folder takes 'images' and 'masks', and no 'folder' or 'options'")
        missing = [name for name in ("images", "masks", "classes") if not getattr(self, name)]
        if missing:
            raise ValueError(f"a dataset of type folder needs '{missing[0]}'")
        check_values(self.classes, self.ignore)
        self._check_splits()

    def _check_splits(self) -> None:
        named = [str(folder).count("{split}") for folder in (self.images, self.masks)]
        ways = [any(named), bool(self.lists), self.fractions is not None]
        if sum(ways) != 1:
            raise ValueError(
                f"{'nothing says' if not any(ways) else 'more than one thing says'} what the splits are; give one of "
                "{split} in both 'images' and 'masks', 'lists', or 'fractions'"
            )
        if ways[0] and named != [1, 1]:
            raise ValueError("{split} stands once in 'images' and once in 'masks', for the name of the split")
        there = self.lists or ({"train", "val", "test"} if self.fractions and self.fractions.test else {"train", "val"})
        strange = [split for split in self.used_splits if split not in there]
        if strange and not ways[0]:
            source = "lists" if self.lists else "fractions"
            raise ValueError(f"splits: '{source}' has no split '{strange[0]}'; it has {', '.join(sorted(there))}")
        if self.fractions and self.fractions.test and self.splits.test is None:
            raise ValueError("fractions keep a test split that nothing uses; add splits: {test: test}")


_OF_FOLDERS = ("images", "masks", "image_suffix", "mask_suffix", "unpaired", "classes", "ignore", "lists", "fractions")


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

    `batch` is what one step of the optimiser sees; `accumulate` cuts it into equal parts that go through one after
    the other. `scale` is the range of the random scale before the crop. `cat_max_ratio`, as mmsegmentation calls it,
    is the share of a crop's counted pixels above which a class makes the crop be drawn anew, up to ten times. `rotate`
    is by how many degrees an image is rotated at most, either way. `batch_norm` is that of the backbone:
    `train`, `eval` (its running statistics stay, its weights learn) or `frozen` (nothing of it learns). `freeze` keeps
    the backbone up to the map of this stride, or all of it, as it starts. `decay` says what weight decay falls on:
    `all`, or `weights` and so neither norms nor biases. `ema` is the decay of an exponential moving average of the
    weights, which is then what is scored. `clip_norm` bounds the norm of the gradient.

    `score_scale` is by what factor an image is resized before the network scores it; the scores come back to its own
    size, where they meet labels that nothing has touched.

    `fused: auto` takes the loss of the scores before their last upsampling where that can be, which is several times
    faster and gives the same figures but for rounding; `off` upsamples first, as the papers do.

    `recompute` saves memory and costs time: what the backbone computes up to the map of this stride, or all of it, is
    computed again in the backward pass instead of being kept. The figures stay the same.

    `precision` is that of the forward pass. `fp32` is IEEE float32 everywhere; `tf32` lets CUDA use TF32 in float32
    convolutions and matrix products, and is fp32 elsewhere; `bf16` and `fp16` are autocast, fp16 with a scaled loss.
    `auto` is bf16 where the hardware multiplies bf16 natively, fp16 on older GPUs with tensor cores, and fp32
    elsewhere. The record names the one that was used.

    `deterministic` makes training on CUDA repeat bit for bit, with slower algorithms; on the CPU it always does.

    `compile` compiles the network for training on CUDA with `torch.compile`: steps are shorter, and the first one takes
    half a minute longer. The figures stay the same but for rounding. On the CPU it does nothing.
    """

    epochs: Count
    batch: Count
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
    accumulate: Count = 1
    clip_norm: Positive | None = None
    ema: Annotated[float, Field(gt=0, lt=1)] | None = None
    batch_norm: Literal["train", "eval", "frozen"] = "train"
    freeze: Literal["none", "stride2", "stride4", "stride8", "stride16", "backbone"] = "none"
    precision: Literal["fp32", "tf32", "bf16", "fp16", "auto"] = "fp32"
    deterministic: bool = False
    compile: bool = False
    fused: Literal["auto", "off"] = "auto"
    recompute: Literal["none", "stride2", "stride4", "stride8", "stride16", "backbone"] = "none"
    score_scale: Annotated[float, Field(ge=0.1, le=10)] = 1.0
    validate_every: Count = 1

    @model_validator(mode="after")
    def _fits_together(self) -> Recipe:
        if self.scale is not None and self.scale[0] > self.scale[1]:
            raise ValueError(f"scale must run from small to large, not from {self.scale[0]} to {self.scale[1]}")
        if self.accumulate > 1 and (self.loss.dice or self.loss.lovasz) and self.loss.reduction != "pixel_mean":
            raise ValueError("accumulate with dice or lovasz goes with loss.reduction: pixel_mean alone")
        if self.batch % self.accumulate:
            raise ValueError(f"accumulate must divide the batch; {self.accumulate} parts of {self.batch} are not equal")
        return self
