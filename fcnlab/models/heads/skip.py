"""FCN-32s, FCN-16s, FCN-8s, and one step further FCN-4s: Long, Shelhamer, Darrell, CVPR 2015, section 4.2."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from fcnlab.models.heads.base import CoarseHead, MakeUpsampler, require

AT_ONCE = {32: 1.0, 16: 1e-2, 8: 1e-4, 4: 1e-6}
"""What the maps are multiplied with before they are scored, so that all of them can be trained at once.

Shelhamer, Long, Darrell, PAMI 2017, section 4.3, for 16 and 8; each step a hundredth, so 4 goes on from there.
"""


class SkipHead(CoarseHead):
    """Scores of the deepest map, fused on the way up with scores of shallower ones.

    From stride 32 the scores are upsampled x2 and fused with 1x1 scores of the next shallower map until `stride` is
    reached, and from there brought to the image's size at once. At the start every skip is a no-op. Fused by `sum`, as
    in the paper, the skips' scores start at zero; fused by `concat`, a 1x1 convolution starts as the identity on the
    deep scores. The deepest score is made first: for one seed it starts alike in all heads.
    """

    def __init__(
        self,
        channels: Mapping[int, int],
        classes: int,
        make_upsampler: MakeUpsampler,
        *,
        stride: int,
        at_once: bool = False,
        fusion: Literal["sum", "concat"] = "sum",
        hidden: int | None = None,
        context: bool = False,
    ) -> None:
        """
        Raises:
            ModelError: a map that the head reads is not among `channels`; the message names those that are.
        """
        super().__init__()
        self.output_stride = stride
        self.reductions = [r for r in (32, 16, 8, 4) if r >= stride]
        require(channels, self.reductions, f"a head of stride {stride}")
        self.scales = AT_ONCE if at_once else dict.fromkeys(AT_ONCE, 1.0)
        skips = self.reductions[1:]
        self.score = nn.ModuleDict({"32": _score(channels[32], classes, hidden, context)})
        self.score.update({str(r): nn.Conv2d(channels[r], classes, kernel_size=1) for r in skips})
        self.fuse = nn.ModuleDict({str(r): make_upsampler(classes, 2, f"to{r}") for r in skips})
        self.upsample = make_upsampler(classes, stride, "image")
        self.mix = nn.ModuleDict()
        for r in skips:
            if fusion == "concat":
                self.mix[str(r)] = _identity_on_the_first(classes)
            else:
                zero(self.score[str(r)])

    def forward(self, features: Mapping[int, Tensor], size: tuple[int, int]) -> Tensor:
        """Map features by reduction to scores [B, classes, *size]."""
        up: Tensor = self.upsample(self.coarse(features), size)
        return up

    def coarse(self, features: Mapping[int, Tensor]) -> Tensor:
        """Map features by reduction to scores [B, classes, h, w] of the shallowest map that is read."""
        deepest, *skips = self.reductions
        scores = self._score(features, deepest)
        for r in skips:
            skip = self._score(features, r)
            scores = self._fused(self.fuse[str(r)](scores, skip.shape[-2:]), skip, str(r))
        return scores

    def _score(self, features: Mapping[int, Tensor], r: int) -> Tensor:
        map_ = features[r] if self.scales[r] == 1 else self.scales[r] * features[r]
        scores: Tensor = self.score[str(r)](map_)
        return scores

    def _fused(self, scores: Tensor, skip: Tensor, r: str) -> Tensor:
        if r not in self.mix:
            return scores + skip
        mixed: Tensor = self.mix[r](torch.cat([scores, skip], dim=1))
        return mixed


def _score(channels: int, classes: int, hidden: int | None, context: bool) -> nn.Module:
    if hidden is None:
        return nn.Conv2d(channels, classes, kernel_size=1)
    return _HiddenScore(channels, classes, hidden, context)


class _HiddenScore(nn.Module):
    """[B, channels, h, w] -> scores [B, classes, h, w] behind a hidden layer, which may see the whole image."""

    def __init__(self, channels: int, classes: int, hidden: int, context: bool) -> None:
        super().__init__()
        self.local = nn.Conv2d(channels, hidden, kernel_size=1)
        self.image = nn.Conv2d(channels, hidden, kernel_size=1, bias=False) if context else None
        self.score = nn.Conv2d(hidden, classes, kernel_size=1)

    def forward(self, map_: Tensor) -> Tensor:
        x = self.local(map_)
        if self.image is not None:
            x = x + self.image(map_.mean(dim=(-2, -1), keepdim=True))
        scores: Tensor = self.score(x.relu())
        return scores


def _identity_on_the_first(classes: int) -> nn.Conv2d:
    """A 1x1 convolution from 2C channels to C that starts by handing on the first C."""
    mix = nn.Conv2d(2 * classes, classes, kernel_size=1)
    zero(mix)
    with torch.no_grad():
        mix.weight[:, :classes, 0, 0] = torch.eye(classes)
    return mix


def zero(module: nn.Module) -> None:
    """Start all parameters of a module at zero."""
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
