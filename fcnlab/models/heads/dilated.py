"""The FCN head of torchvision and mmsegmentation, for dilated backbones."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from fcnlab.models.heads.base import CoarseHead, MakeUpsampler, require


class DilatedHead(CoarseHead):
    """3x3 convolutions, dropout and a 1x1 convolution on the deepest map of a dilated backbone.

    With one 3x3 convolution of a quarter of the map's channels it is torchvision's `FCNHead`; with two of 512 channels
    and `concat_input` it is mmsegmentation's.
    """

    def __init__(
        self,
        channels: Mapping[int, int],
        num_classes: int,
        make_upsampler: MakeUpsampler,
        *,
        output_stride: int,
        hidden: int | None = None,
        convs: int = 1,
        concat_input: bool = False,
        dropout: float = 0.1,
        auxiliary: int | None = None,
    ) -> None:
        """Build the convolutions and the upsampler.

        Args:
            channels: channels of the feature maps, by reduction.
            num_classes: number of classes.
            make_upsampler: creates the upsampler of each stage.
            output_stride: stride of the deepest map.
            hidden: channels of the 3x3 convolutions; a quarter of the map's by default.
            convs: number of 3x3 convolutions.
            concat_input: concatenate the map to the output of the convolutions.
            dropout: probability before the scores.
            auxiliary: reduction of the map of an auxiliary head of one 3x3 convolution, with torchvision's dropout.

        Raises:
            ModelError: `channels` lacks a map that the head reads; the message names the existing ones.
        """
        super().__init__()
        self.output_stride = output_stride
        require(channels, [32, *([auxiliary] if auxiliary else [])], "a dilated head")
        self.classify = _Classifier(channels[32], num_classes, hidden, convs, concat_input, dropout)
        self.upsample = make_upsampler(num_classes, output_stride, "image")
        self.auxiliary_map = auxiliary
        if auxiliary is not None:
            self.auxiliary_classify = _Classifier(channels[auxiliary], num_classes, None, 1, False, dropout)
            self.auxiliary_upsample = make_upsampler(num_classes, min(auxiliary, output_stride), "image")

    def coarse(self, features: Mapping[int, Tensor]) -> Tensor:
        scores: Tensor = self.classify(features[32])
        return scores

    def auxiliary(self, features: Mapping[int, Tensor], size: tuple[int, int]) -> Tensor | None:
        if self.auxiliary_map is None:
            return None
        scores: Tensor = self.auxiliary_upsample(self.auxiliary_classify(features[self.auxiliary_map]), size)
        return scores


class _Classifier(nn.Module):
    """[B, channels, h, w] -> scores [B, num_classes, h, w]."""

    def __init__(
        self, channels: int, num_classes: int, hidden: int | None, convs: int, concat_input: bool, dropout: float
    ) -> None:
        super().__init__()
        hidden = hidden or max(1, channels // 4)
        self.convs = nn.Sequential(*(_conv(channels if i == 0 else hidden, hidden) for i in range(convs)))
        self.concat = _conv(channels + hidden, hidden) if concat_input else None
        # mmsegmentation drops whole channels, torchvision single features.
        self.dropout = nn.Dropout2d(dropout) if concat_input else nn.Dropout(dropout)
        self.score = nn.Conv2d(hidden, num_classes, kernel_size=1)

    def forward(self, map_: Tensor) -> Tensor:
        x = self.convs(map_)
        if self.concat is not None:
            x = self.concat(torch.cat([map_, x], dim=1))
        scores: Tensor = self.score(self.dropout(x))
        return scores


def _conv(channels: int, hidden: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, hidden, kernel_size=3, padding=1, bias=False), nn.BatchNorm2d(hidden), nn.ReLU()
    )
