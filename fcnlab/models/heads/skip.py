"""FCN-32s, FCN-16s and FCN-8s: Long, Shelhamer, Darrell, CVPR 2015, section 4.2."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from fcnlab.errors import ModelError
from fcnlab.models.heads.base import Head, MakeUpsampler, crop


class SkipHead(Head):
    """Scores of the deepest map, fused on the way up with scores of shallower ones.

    From stride 32 the scores are upsampled x2 and summed with 1x1 scores of the next shallower map until `stride` is
    reached, and from there to the image's size at once. The skips' scores start at zero, as the paper's do, so that at
    the start every skip is a no-op. The deepest score is made first: for one seed it starts alike in all heads.
    """

    def __init__(
        self, channels: Mapping[int, int], classes: int, make_upsampler: MakeUpsampler, *, stride: int
    ) -> None:
        """
        Raises:
            ModelError: a map that the head reads is not among `channels`; the message names those that are.
        """
        super().__init__()
        self.reductions = [r for r in (32, 16, 8) if r >= stride]
        missing = [r for r in self.reductions if r not in channels]
        if missing:
            have = ", ".join(map(str, sorted(channels)))
            raise ModelError(
                f"a head of stride {stride} needs features at stride {missing[0]}; the backbone has {have}"
            )
        skips = self.reductions[1:]
        self.score = nn.ModuleDict({str(r): nn.Conv2d(channels[r], classes, kernel_size=1) for r in self.reductions})
        for r in skips:
            for parameter in self.score[str(r)].parameters():
                nn.init.zeros_(parameter)
        self.fuse = nn.ModuleDict({str(r): make_upsampler(classes, 2) for r in skips})
        self.upsample = make_upsampler(classes, stride)

    def forward(self, features: Mapping[int, Tensor], size: tuple[int, int]) -> Tensor:
        """Map features by reduction to scores [B, classes, *size]."""
        deepest, *skips = self.reductions
        scores = self.score[str(deepest)](features[deepest])
        for r in skips:
            skip = self.score[str(r)](features[r])
            scores = crop(self.fuse[str(r)](scores), skip.shape[-2:]) + skip
        return crop(self.upsample(scores), size)
