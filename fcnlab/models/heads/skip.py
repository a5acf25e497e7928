"""FCN-32s, FCN-16s, FCN-8s (Long, Shelhamer, Darrell, CVPR 2015, section 4.2) and FCN-4s."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from fcnlab.models.heads.base import CoarseHead, MakeUpsampler, require

AT_ONCE = {32: 1.0, 16: 1e-2, 8: 1e-4, 4: 1e-6}
"""Factors of the maps in all-at-once training: Shelhamer et al., PAMI 2017, section 4.3. 4 continues the series."""


class SkipHead(CoarseHead):
    """Scores of the deepest map, fused with scores of shallower maps.

    The scores at stride 32 are upsampled by 2 and fused with 1x1 scores of the next shallower map, until `stride` is
    reached; from there they are upsampled to the size of the image. Skips are initialized so that they change nothing:
    with `sum`, as in the paper, their scores are zero; with `concat`, a 1x1 convolution is the identity on the deeper
    scores. The deepest scores are initialized first, so they are equal in all heads with the same seed.
    """

    def __init__(
        self,
        channels: Mapping[int, int],
        num_classes: int,
        make_upsampler: MakeUpsampler,
        *,
        stride: int,
        at_once: bool = False,
        fusion: Literal["sum", "concat"] = "sum",
        hidden: int | None = None,
        context: bool = False,
    ) -> None:
        """Build the score layers and the upsamplers.

        Args:
            channels: channels of the feature maps, by reduction.
            num_classes: number of classes.
            make_upsampler: creates the upsampler of each stage.
            stride: stride of the shallowest map that is fused.
            at_once: scale the maps of the skips by `AT_ONCE`.
            fusion: `sum` or `concat`.
            hidden: channels of a layer before the deepest scores.
            context: add the image's mean features to this layer (ParseNet: Liu et al., 2015, section 3.1).

        Raises:
            ModelError: `channels` lacks a map that the head reads; the message names the existing ones.
        """
        super().__init__()
        self.output_stride = stride
        self.reductions = [r for r in (32, 16, 8, 4) if r >= stride]
        require(channels, self.reductions, f"a head of stride {stride}")
        self.scales = AT_ONCE if at_once else dict.fromkeys(AT_ONCE, 1.0)
        skips = self.reductions[1:]
        self.score = nn.ModuleDict({"32": _score(channels[32], num_classes, hidden, context)})
        self.score.update({str(r): nn.Conv2d(channels[r], num_classes, kernel_size=1) for r in skips})
        self.fuse = nn.ModuleDict({str(r): make_upsampler(num_classes, 2, f"to{r}") for r in skips})
        self.upsample = make_upsampler(num_classes, stride, "image")
        self.mix = nn.ModuleDict()
        for r in skips:
            if fusion == "concat":
                self.mix[str(r)] = _identity_conv(num_classes)
            else:
                zero(self.score[str(r)])

    def coarse(self, features: Mapping[int, Tensor]) -> Tensor:
        deepest, *skips = self.reductions
        scores = self._score(features, deepest)
        for r in skips:
            skip = self._score(features, r)
            scores = self.fuse[str(r)](scores, skip.shape[-2:])
            scores = self.mix[str(r)](torch.cat([scores, skip], dim=1)) if self.mix else scores + skip
        return scores

    def _score(self, features: Mapping[int, Tensor], r: int) -> Tensor:
        map_ = features[r] if self.scales[r] == 1 else self.scales[r] * features[r]
        scores: Tensor = self.score[str(r)](map_)
        return scores


def _score(channels: int, num_classes: int, hidden: int | None, context: bool) -> nn.Module:
    if hidden is None:
        return nn.Conv2d(channels, num_classes, kernel_size=1)
    return _HiddenScore(channels, num_classes, hidden, context)


class _HiddenScore(nn.Module):
    """[B, channels, h, w] -> scores [B, num_classes, h, w] after a hidden layer, optionally with the image's mean."""

    def __init__(self, channels: int, num_classes: int, hidden: int, context: bool) -> None:
        super().__init__()
        self.local = nn.Conv2d(channels, hidden, kernel_size=1)
        self.image = nn.Conv2d(channels, hidden, kernel_size=1, bias=False) if context else None
        self.score = nn.Conv2d(hidden, num_classes, kernel_size=1)

    def forward(self, map_: Tensor) -> Tensor:
        x = self.local(map_)
        if self.image is not None:
            x = x + self.image(map_.mean(dim=(-2, -1), keepdim=True))
        scores: Tensor = self.score(x.relu())
        return scores


def _identity_conv(num_classes: int) -> nn.Conv2d:
    """Return a 1x1 convolution from 2C to C channels, initialized to the identity on the first C."""
    mix = nn.Conv2d(2 * num_classes, num_classes, kernel_size=1)
    zero(mix)
    with torch.no_grad():
        mix.weight[:, :num_classes, 0, 0] = torch.eye(num_classes)
    return mix


def zero(module: nn.Module) -> None:
    """Initialize all parameters of a module to zero.

    Args:
        module: changed in place.
    """
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
