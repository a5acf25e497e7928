"""Configuration of heads: from feature maps to class scores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, Tag, model_validator

from fcnlab.config.base import BUILTIN, Count, Entry, Finite, Length, SameType, Truth, tag_by_type
from fcnlab.errors import nearest


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
    def optional(self) -> tuple[int, ...]:
        """Strides of the feature maps that the head also reads if the backbone has them."""
        return ()

    @property
    def backbone_stride(self) -> int:
        """Output stride that the backbone is dilated to; 32 is without dilation."""
        return 32

    @property
    def upsamples(self) -> bool:
        """True if the head uses the upsampler of the variant."""
        return True

    @property
    def min_images(self) -> int:
        """Least number of images of a micro-batch in training."""
        return 1

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
    stride: Annotated[Literal[32, 16, 8, 4], SameType]
    at_once: Truth = False
    fusion: Literal["sum", "concat"] = "sum"
    hidden: Length | None = None
    context: Truth = False

    @property
    def needs(self) -> tuple[int, ...]:
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
    stride: Annotated[Literal[32, 16, 8], SameType]
    at_once: Truth = False

    @property
    def needs(self) -> tuple[int, ...]:
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
    output_stride: Annotated[Literal[8, 16], SameType]
    hidden: Length | None = None
    convs: Annotated[Literal[1, 2, 3, 4], SameType] = 1
    concat_input: Truth = False
    dropout: Annotated[float, Field(strict=True, ge=0, lt=1)] = 0.1
    auxiliary: Annotated[Literal[8, 16] | None, SameType] = None

    @property
    def needs(self) -> tuple[int, ...]:
        return (32,) if self.auxiliary is None else (self.auxiliary, 32)

    @property
    def backbone_stride(self) -> int:
        return self.output_stride


@dataclass(frozen=True)
class SmpDecoder:
    """A decoder of segmentation_models_pytorch, as far as configurations depend on it.

    Attributes:
        options: keyword arguments of its class.
        needs: strides of the feature maps that it reads.
        optional: strides of the feature maps that it also reads if the backbone has them.
    """

    options: tuple[str, ...]
    needs: tuple[int, ...] = (4, 8, 16, 32)
    optional: tuple[int, ...] = ()


SMP_DECODERS: Mapping[str, SmpDecoder] = MappingProxyType(
    {
        "unet": SmpDecoder(
            ("decoder_channels", "use_norm", "attention_type", "add_center_block", "interpolation_mode"), optional=(2,)
        ),
        "deeplabv3plus": SmpDecoder(("out_channels", "atrous_rates", "aspp_separable", "aspp_dropout"), needs=(4, 32)),
        "fpn": SmpDecoder(
            ("pyramid_channels", "segmentation_channels", "dropout", "merge_policy", "interpolation_mode")
        ),
        "upernet": SmpDecoder(("decoder_channels", "use_norm")),
        "segformer": SmpDecoder(("segmentation_channels",), optional=(2,)),
    }
)
"""The decoders by name."""


class SmpHead(Head):
    """Configuration of a decoder of segmentation_models_pytorch, for comparison with FCNs.

    Attributes:
        decoder: name of the decoder.
        output_stride: stride that the backbone is dilated to: 8 or 16 for `deeplabv3plus`, 32 for the others.
        options: keyword arguments of the decoder's class (`SMP_DECODERS`).
    """

    type: Literal["smp"]
    decoder: Literal["unet", "deeplabv3plus", "fpn", "upernet", "segformer"]
    output_stride: Annotated[Literal[8, 16, 32], SameType] = 32
    options: dict[str, bool | int | Finite | str | tuple[Length, ...]] = {}  # noqa: RUF012 - pydantic copies defaults

    @property
    def needs(self) -> tuple[int, ...]:
        return SMP_DECODERS[self.decoder].needs

    @property
    def optional(self) -> tuple[int, ...]:
        return SMP_DECODERS[self.decoder].optional

    @property
    def backbone_stride(self) -> int:
        return self.output_stride

    @property
    def upsamples(self) -> bool:
        """True if the head uses the upsampler of the variant; U-Net's scores have the size of the image already."""
        return self.decoder != "unet"

    @property
    def min_images(self) -> int:
        """Least number of images of a micro-batch in training; two where the mean of an image has a batch norm."""
        return 2 if self.decoder in ("deeplabv3plus", "upernet") else 1

    @model_validator(mode="after")
    def _check_combination(self) -> SmpHead:
        if (self.decoder == "deeplabv3plus") != (self.output_stride != 32):
            valid = "8 or 16" if self.decoder == "deeplabv3plus" else "32"
            raise ValueError(
                f"output_stride: {self.output_stride} is not valid with decoder: {self.decoder}; use {valid}"
            )
        known = SMP_DECODERS[self.decoder].options
        unknown = [name for name in self.options if name not in known]
        if unknown:
            valid = nearest(unknown[0], known)
            raise ValueError(f"options: decoder {self.decoder} has no option '{unknown[0]}'; {valid}")
        return self


class CustomHead(Head):
    """Configuration of a head that is not built in.

    Attributes:
        type: name of its class among the extensions (see `docs/extending.md`).
        output_stride: stride that the backbone is dilated to.
        options: keyword arguments of its class.
        reads: strides of the feature maps that it reads.
    """

    not_in_key: ClassVar[frozenset[str]] = Entry.not_in_key | {"reads"}

    type: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
    output_stride: Annotated[Literal[8, 16, 32], SameType] = 32
    options: dict[str, bool | int | Finite | str] = {}  # noqa: RUF012 - pydantic copies defaults
    reads: tuple[Count, ...] = (32,)

    @property
    def needs(self) -> tuple[int, ...]:
        return tuple(sorted(self.reads))

    @property
    def backbone_stride(self) -> int:
        return self.output_stride

    @property
    def arguments(self) -> dict[str, Any]:
        return ({"output_stride": self.output_stride} if self.output_stride != 32 else {}) | self.options


def _check_at_once(at_once: bool, stride: int) -> None:
    if at_once and stride == 32:
        raise ValueError("at_once scales the skips; a head of stride 32 has none")


BuiltinHead = Annotated[SkipHead | PaperHead | DilatedHead | SmpHead, Field(discriminator="type")]
"""A head whose class is in `fcnlab.models.heads.HEADS`."""

AnyHead = Annotated[
    Annotated[BuiltinHead, Tag(BUILTIN)] | Annotated[CustomHead, Tag("custom")], tag_by_type(BuiltinHead)
]
