"""Configuration of an FCN variant: backbone, head and upsampler."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from fcnlab.config.base import Config, Count, Entry


class Backbone(Entry):
    """Configuration of a feature extractor and of the source of its weights.

    Attributes:
        timm: name of a timm model; or
        paper: one of the networks of Long et al. (CVPR 2015).
        tail: add the layers between the deepest map and the classifier's pooling, such as the 1x1 convolution to 1280
            channels of MobileNetV2; pretrained like the rest.
        weights: `scratch`, `timm` (the pretrained weights of the tag in the timm name), `torchvision` (for the paper's
            networks), or the path of a local `.safetensors` or `.pth` state dict, looked up in the lab and then below
            the data root.
        reductions: strides of the feature maps, in increasing order.
    """

    not_in_key: ClassVar[frozenset[str]] = Entry.not_in_key | {"reductions"}

    timm: str | None = None
    paper: Literal["vgg16", "alexnet", "googlenet"] | None = None
    tail: bool = False
    weights: Annotated[str, Field(pattern=r"^(scratch|timm|torchvision|.+\.(safetensors|pth|pt))$")] = "scratch"
    reductions: tuple[Count, ...] = (2, 4, 8, 16, 32)

    @property
    def weights_file(self) -> str | None:
        """The local file of the weights; None if they come from elsewhere."""
        return None if self.weights in ("scratch", "timm", "torchvision") else self.weights

    @property
    def architecture(self) -> str:
        """The name of the network, such as `resnet18.tv_in1k`."""
        return self.timm or f"{self.paper}-paper"

    @model_validator(mode="after")
    def _check_source(self) -> Backbone:
        if (self.timm is None) == (self.paper is None):
            raise ValueError("a backbone is one network: give either 'timm' or 'paper'")
        if self.tail and self.timm is None:
            raise ValueError(f"{self.architecture} has no 'tail'; it ends in the classifier's convolutions already")
        hub = "timm" if self.timm is not None else "torchvision"
        if self.weights in ("timm", "torchvision") and self.weights != hub:
            raise ValueError(f"{self.architecture} has pretrained weights of {hub}, not of {self.weights}")
        return self


class Head(Entry):
    """Base of the configurations of heads.

    Attributes:
        type: key of the head's class in `fcnlab.models.heads.HEADS`.
    """

    type: str

    @property
    def needs(self) -> tuple[int, ...]:
        """Strides of the feature maps that the head reads, in increasing order."""
        raise NotImplementedError

    @property
    def backbone_stride(self) -> int:
        """Output stride that the backbone is dilated to; 32 is without dilation."""
        return 32

    @property
    def arguments(self) -> dict[str, Any]:
        """Keyword arguments of the head's class; defaults are left to the class."""
        return {name: value for name, value in self.content().items() if name != "type"}


class SkipHead(Head):
    """Configuration of the heads FCN-32s to FCN-4s: Long et al. (CVPR 2015), section 4.2.

    Attributes:
        stride: stride of the shallowest map that is fused.
        at_once: scale the skips' maps by 0.01, 0.0001, ... (Shelhamer et al., PAMI 2017, section 4.3).
        fusion: sum the scores, or concatenate them and convolve by 1x1.
        hidden: channels of a layer before the deepest scores.
        context: add the image's mean features to this layer (ParseNet: Liu et al., 2015, section 3.1).
    """

    type: Literal["skip"]
    stride: Literal[32, 16, 8, 4]
    at_once: bool = False
    fusion: Literal["sum", "concat"] = "sum"
    hidden: Count | None = None
    context: bool = False

    @property
    def needs(self) -> tuple[int, ...]:
        """Strides of the feature maps that the head reads, in increasing order."""
        return tuple(stride for stride in (4, 8, 16, 32) if stride >= self.stride)

    @model_validator(mode="after")
    def _check_combination(self) -> SkipHead:
        if self.context and self.hidden is None:
            raise ValueError("context needs a hidden layer; set its channels, such as hidden: 256")
        _check_at_once(self.at_once, self.stride)
        return self


class PaperHead(Head):
    """Configuration of a skip head with the padding and crops of the authors' code.

    Attributes:
        stride: stride of the shallowest map that is fused.
        at_once: scale the skips' maps by 0.01 and 0.0001.
    """

    type: Literal["paper"]
    stride: Literal[32, 16, 8]
    at_once: bool = False

    @property
    def needs(self) -> tuple[int, ...]:
        """Strides of the feature maps that the head reads, in increasing order."""
        return tuple(stride for stride in (8, 16, 32) if stride >= self.stride)

    @model_validator(mode="after")
    def _check_combination(self) -> PaperHead:
        _check_at_once(self.at_once, self.stride)
        return self


class DilatedHead(Head):
    """Configuration of a head on the deepest map of a dilated backbone, as in torchvision and mmsegmentation.

    Attributes:
        output_stride: stride that the backbone is dilated to.
        hidden: channels of the 3x3 convolutions; a quarter of the map's by default.
        convs: number of 3x3 convolutions.
        concat_input: concatenate the map to the output of the convolutions.
        dropout: probability before the scores.
        auxiliary: stride of the map of an auxiliary head, counted without dilation.
    """

    type: Literal["dilated"]
    output_stride: Literal[8, 16]
    hidden: Count | None = None
    convs: Literal[1, 2, 3, 4] = 1
    concat_input: bool = False
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    auxiliary: Literal[8, 16] | None = None

    @property
    def needs(self) -> tuple[int, ...]:
        """Strides of the feature maps that the head reads, in increasing order."""
        return (32,) if self.auxiliary is None else (self.auxiliary, 32)

    @property
    def backbone_stride(self) -> int:
        """Output stride that the backbone is dilated to."""
        return self.output_stride


class CustomHead(Head):
    """Configuration of a head that is not built in.

    Attributes:
        type: key of its class in the table of heads.
        output_stride: stride that the backbone is dilated to.
        options: keyword arguments of its class.
        reads: strides of the feature maps that it reads.
    """

    not_in_key: ClassVar[frozenset[str]] = Entry.not_in_key | {"reads"}

    type: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
    output_stride: Literal[8, 16, 32] = 32
    options: dict[str, bool | int | float | str] = {}  # noqa: RUF012 - pydantic copies defaults
    reads: tuple[Count, ...] = (32,)

    @property
    def needs(self) -> tuple[int, ...]:
        """Strides of the feature maps that the head reads, in increasing order."""
        return tuple(sorted(self.reads))

    @property
    def backbone_stride(self) -> int:
        """Output stride that the backbone is dilated to; 32 is without dilation."""
        return self.output_stride

    @property
    def arguments(self) -> dict[str, Any]:
        """Keyword arguments of the head's class."""
        return ({"output_stride": self.output_stride} if self.output_stride != 32 else {}) | self.options


def _check_at_once(at_once: bool, stride: int) -> None:
    if at_once and stride == 32:
        raise ValueError("at_once scales the skips; a head of stride 32 has none")


def _tag_head(value: Any) -> str | None:
    """Return the discriminator of a head: its type, or `custom` for a type that is not built in."""
    kind = value.get("type") if isinstance(value, dict) else getattr(value, "type", None)
    return kind if kind is None or kind in ("skip", "paper", "dilated") else "custom"


AnyHead = Annotated[
    Annotated[SkipHead, Tag("skip")]
    | Annotated[PaperHead, Tag("paper")]
    | Annotated[DilatedHead, Tag("dilated")]
    | Annotated[CustomHead, Tag("custom")],
    Discriminator(_tag_head),
]


Init = Literal["bilinear", "random", "xavier", "kaiming", "normal", "zero"]


class StageInit(Config):
    """Initialization of single upsamplings, by the stride that they lead to.

    Attributes:
        to16: of the upsampling to stride 16; None: as `init` of the upsampler.
        to8: to stride 8.
        to4: to stride 4.
        image: to the size of the image.
    """

    to16: Init | None = None
    to8: Init | None = None
    to4: Init | None = None
    image: Init | None = None


class Upsampler(Entry):
    """Base of the configurations of upsamplers."""

    type: str


class TransposedUpsampler(Upsampler):
    """Configuration of a transposed convolution of kernel 2s, stride s and padding s/2 for a factor s.

    Attributes:
        init: initialization of the weights.
        learned: whether the weights are trained.
        channels: `dense` (every class reads every class), `diagonal` (dense, but initialized so that each class reads
            only itself) or `per_class` (each class reads only itself, always).
        bias: whether there is a bias.
        stage_init: initialization of single upsamplings, where it differs from `init`.
    """

    renamed: ClassVar[dict[str, str]] = Entry.renamed | {"start": "init", "stages": "stage_init"}

    type: Literal["transposed"] = "transposed"
    init: Init
    learned: bool = True
    channels: Literal["dense", "diagonal", "per_class"] = "dense"
    bias: bool = False
    stage_init: StageInit = StageInit()

    def init_of(self, stage: str) -> Init:
        """Return the initialization of one upsampling: `to16`, `to8`, `to4` or `image`."""
        own: Init | None = getattr(self.stage_init, stage, None)
        return own or self.init

    @model_validator(mode="after")
    def _check_init(self) -> TransposedUpsampler:
        used = {self.init, *self.stage_init.content().values()}
        if not self.learned and used != {"bilinear"}:
            other = min(used - {"bilinear"})
            raise ValueError(f"a fixed upsampler (learned: false) cannot have init: {other}; use init: bilinear")
        if self.channels == "diagonal" and used <= {"bilinear", "zero"}:
            raise ValueError(f"init: {self.init} is diagonal anyway; use channels: dense")
        return self


class InterpolateUpsampler(Upsampler):
    """Configuration of interpolation by the factor, aligned at the corner as the transposed convolutions are.

    Attributes:
        mode: of `torch.nn.functional.interpolate`.
    """

    type: Literal["interpolate"]
    mode: Literal["bilinear", "nearest"]


class ResizeUpsampler(Upsampler):
    """Configuration of interpolation to the target size, as in torchvision and mmsegmentation.

    Attributes:
        mode: of `torch.nn.functional.interpolate`.
    """

    type: Literal["resize"]
    mode: Literal["bilinear", "nearest"]


def _tag_upsampler(value: Any) -> Any:
    """Return the discriminator of an upsampler: its type, by default `transposed`."""
    return value.get("type", "transposed") if isinstance(value, dict) else getattr(value, "type", None)


AnyUpsampler = Annotated[
    Annotated[TransposedUpsampler, Tag("transposed")]
    | Annotated[InterpolateUpsampler, Tag("interpolate")]
    | Annotated[ResizeUpsampler, Tag("resize")],
    Discriminator(_tag_upsampler),
]


class Variant(Config):
    """Configuration of one FCN architecture.

    Attributes:
        backbone: the feature extractor.
        head: from feature maps to class scores.
        upsampler: from class scores to the size of the image.
    """

    backbone: Backbone
    head: AnyHead
    upsampler: AnyUpsampler

    @model_validator(mode="after")
    def _check_paper_components(self) -> Variant:
        paper_net, paper_head = self.backbone.paper is not None, self.head.type == "paper"
        if paper_net and not paper_head:
            raise ValueError(
                f"the paper's {self.backbone.paper} pads its input, and only heads of type paper crop for that; "
                "use head: fcn32s-paper"
            )
        if paper_head and not paper_net:
            raise ValueError(
                "a head of type paper crops for the padding of the paper's networks; use backbone: vgg16-paper"
            )
        if paper_head and self.upsampler.type != "transposed":
            raise ValueError("a head of type paper upsamples by transposed convolution; use upsampler: bilinear")
        return self


class NamedVariant(Entry):
    """Configuration of a variant in the registry, by the names of its components.

    Attributes:
        backbone: name of a backbone.
        head: name of a head.
        upsampler: name of an upsampler.
    """

    backbone: str
    head: str
    upsampler: str
