"""Decoders of segmentation_models_pytorch (smp) as heads, for comparison with FCNs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fcnlab.config.head import SMP_DECODERS
from fcnlab.errors import ModelError
from fcnlab.models.heads.base import CoarseHead, MakeUpsampler, require
from fcnlab.models.upsampler import crop

STRIDES = (2, 4, 8, 16, 32)
"""Reductions of the feature maps that smp's decoders are called with, after the image itself."""


@dataclass(frozen=True)
class Decoder:
    """A decoder of smp, with the settings that smp's model of this name has.

    Attributes:
        name: module and class below `segmentation_models_pytorch.decoders`.
        stride: stride of its output.
        kernel: kernel size of the convolution to class scores.
        width: channels of its output, computed from the options.
        options: defaults of the options.
    """

    name: str
    stride: int
    kernel: int
    width: Callable[[Mapping[str, Any]], int]
    options: Mapping[str, Any] = field(default_factory=dict)

    def load(self) -> Callable[..., nn.Module]:
        """Import the class, only where it is used, because smp takes a second to import."""
        module, _, name = self.name.rpartition(".")
        decoder: Callable[..., nn.Module] = getattr(
            import_module(f"segmentation_models_pytorch.decoders.{module}"), name
        )
        return decoder


def _fpn_width(options: Mapping[str, Any]) -> int:
    return int(options["segmentation_channels"]) * (4 if options["merge_policy"] == "cat" else 1)


DECODERS: Mapping[str, Decoder] = {
    "unet": Decoder(
        "unet.decoder.UnetDecoder",
        stride=1,
        kernel=3,
        width=lambda options: int(options["decoder_channels"][-1]),
        options={"decoder_channels": (256, 128, 64, 32, 16)},
    ),
    "deeplabv3plus": Decoder(
        "deeplabv3.decoder.DeepLabV3PlusDecoder",
        stride=4,
        kernel=1,
        width=lambda options: int(options["out_channels"]),
        options={"out_channels": 256, "atrous_rates": (12, 24, 36), "aspp_separable": True, "aspp_dropout": 0.5},
    ),
    "fpn": Decoder(
        "fpn.decoder.FPNDecoder",
        stride=4,
        kernel=1,
        width=_fpn_width,
        options={"segmentation_channels": 128, "merge_policy": "add"},
    ),
    "upernet": Decoder(
        "upernet.decoder.UPerNetDecoder",
        stride=4,
        kernel=1,
        width=lambda options: int(options["decoder_channels"]),
        options={"decoder_channels": 256},
    ),
    "segformer": Decoder(
        "segformer.decoder.SegformerDecoder",
        stride=4,
        kernel=1,
        width=lambda options: int(options["segmentation_channels"]),
        options={"segmentation_channels": 256},
    ),
}


class SmpHead(CoarseHead):
    """A decoder of smp, its convolution to class scores, and the upsampler of the variant.

    Decoder, convolution and initialization are smp's, except that smp keeps PyTorch's initialization in its DeepLabv3+.
    The upsampler replaces smp's bilinear interpolation; U-Net's scores have the size of the image already, so it has
    none. Several of smp's models accept only images whose sides are multiples of 16 or 32. Here the maps of other
    images are padded with zeros at the right and bottom to the size that they have for the next multiple of the deepest
    stride, and the scores are cropped.

    Attributes:
        decoder: smp's decoder.
        score: convolution to class scores.
        strides: strides of the maps that the decoder reads, by reduction; smaller than it in a dilated backbone.
    """

    def __init__(
        self,
        channels: Mapping[int, int],
        num_classes: int,
        make_upsampler: MakeUpsampler,
        *,
        decoder: str,
        output_stride: int = 32,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        """Build the decoder, the score layer and the upsampler.

        Args:
            channels: channels of the feature maps, by reduction.
            num_classes: number of classes.
            make_upsampler: creates the upsampler of each stage.
            decoder: one of `DECODERS`.
            output_stride: stride of the deepest map.
            options: keyword arguments of smp's decoder; smp's defaults for the others.

        Raises:
            ModelError: `channels` lacks a map that the decoder reads, or an option has an invalid value.
        """
        from segmentation_models_pytorch.base.initialization import initialize_decoder, initialize_head

        super().__init__()
        spec, maps = DECODERS[decoder], SMP_DECODERS[decoder]
        require(channels, list(maps.needs), f"a head with smp's decoder {decoder}")
        read = [r for r in STRIDES if r in maps.needs or (r in maps.optional and r in channels)]
        self.strides = {r: min(r, output_stride) for r in read}
        arguments = {**spec.options, **(options or {})}
        fixed = {"output_stride": output_stride} if decoder == "deeplabv3plus" else {}
        # UnetDecoder has another name for the number of maps.
        depth = {"n_blocks" if decoder == "unet" else "encoder_depth": len(STRIDES)}
        try:
            # Three channels of the image in any case: decoders compute no features from it.
            self.decoder = spec.load()(
                encoder_channels=[3, *(channels[r] if r in read else 0 for r in STRIDES)], **depth, **fixed, **arguments
            )
            self.score = nn.Conv2d(spec.width(arguments), num_classes, spec.kernel, padding=spec.kernel // 2)
        except (TypeError, ValueError, KeyError) as error:
            raise ModelError(
                f"smp's decoder {decoder} does not accept {dict(options or {})}: {str(error).rstrip('.')}"
            ) from error
        initialize_decoder(self.decoder)
        initialize_head(self.score)
        self.output_stride = spec.stride
        self.upsample = make_upsampler(num_classes, spec.stride, "image") if spec.stride > 1 else _Crop()

    def coarse(self, features: Mapping[int, Tensor]) -> Tensor:
        """Compute the scores before the last upsampling.

        Args:
            features: maps by reduction.

        Returns:
            Logits [B, num_classes, h, w]: of the size of the map at stride 4; with U-Net of that of the image, rounded
            up.
        """
        deepest = features[32]
        rows, columns = (side * self.strides[32] for side in deepest.shape[-2:])
        maps = [deepest.new_empty((deepest.shape[0], 0, rows, columns))]  # of the image, only the size is read
        for r in STRIDES:
            stride = self.strides.get(r, r)
            size = (rows // stride, columns // stride)
            maps.append(
                _pad(features[r], size) if r in self.strides else deepest.new_empty((deepest.shape[0], 0, *size))
            )
        scores: Tensor = self.score(self.decoder(maps))
        return scores if self.output_stride == 1 else crop(scores, features[self.output_stride].shape[-2:])


class _Crop(nn.Module):
    """Crop of scores that are at least as large as the image."""

    def forward(self, scores: Tensor, size: Sequence[int]) -> Tensor:
        return crop(scores, size)


def _pad(map_: Tensor, size: tuple[int, int]) -> Tensor:
    """Pad a map with zeros at the right and bottom."""
    below, right = (target - current for target, current in zip(size, map_.shape[-2:], strict=True))
    # An exported program has to pad for all sizes, also where the traced size needs no padding.
    if not torch.compiler.is_exporting() and not (below or right):
        return map_
    return F.pad(map_, (0, right, 0, below))
