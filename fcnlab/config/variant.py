"""Types of an FCN variant: backbone, head and upsampler."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from fcnlab.config.base import Config, Count, Doc, Entry


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
    options: dict[str, Scalar] = {}  # noqa: RUF012 - pydantic copies defaults
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


Init = Literal["bilinear", "random", "xavier", "kaiming", "normal", "zero"]


class StageInit(Config):
    """How single upsamplings start, by the stride that they lead to; None starts as the rest do."""

    to16: Init | None = None
    to8: Init | None = None
    to4: Init | None = None
    image: Init | None = None


class Upsampler(Entry):
    """What brings scores up: a transposed convolution and how it starts, or plain interpolation.

    A `transposed` one has kernel 2s, stride s, padding s/2 for a factor s. Its `channels` are `dense` (each class
    reads each class), `diagonal` (dense, but each class starts reading itself alone) or `per_class` (each class can
    only ever read itself). `interpolate` goes by the factor and stays aligned at the corner, as the learned ones do;
    `resize` stretches to the size that it leads to, as torchvision and mmsegmentation do.
    """

    renamed: ClassVar[dict[str, str]] = Entry.renamed | {"start": "init", "stages": "stage_init"}

    type: Literal["transposed", "interpolate", "resize"] = "transposed"
    init: Init | None = None
    mode: Literal["bilinear", "nearest"] | None = None
    learned: bool = True
    channels: Literal["dense", "diagonal", "per_class"] = "dense"
    bias: bool = False
    stage_init: StageInit = StageInit()

    @property
    def stage_inits(self) -> dict[str, Init]:
        """How each stage starts that is set apart from the rest."""
        return self.stage_init.content()

    @model_validator(mode="after")
    def _says_something(self) -> Upsampler:
        if self.type != "transposed":
            strange = sorted(self.content().keys() - {"type", "mode"})
            if self.mode is None:
                raise ValueError(f"an upsampler of type {self.type} needs a 'mode': bilinear or nearest")
            if strange:
                raise ValueError(f"an upsampler of type {self.type} has no weights and takes no '{strange[0]}'")
            return self
        if self.init is None:
            raise ValueError("a transposed convolution needs an 'init': bilinear, random, xavier, ...")
        if self.mode is not None:
            raise ValueError("'mode' is for type: interpolate or resize; a transposed convolution has an 'init'")
        started = {self.init, *self.stage_inits.values()}
        if not self.learned and started != {"bilinear"}:
            other = next(iter(sorted(started - {"bilinear"})))
            raise ValueError(f"a fixed upsampler (learned: false) cannot have init: {other}; use init: bilinear")
        if self.channels == "diagonal" and started <= {"bilinear", "zero"}:
            raise ValueError(f"init: {self.init} is diagonal anyway; use channels: dense")
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
