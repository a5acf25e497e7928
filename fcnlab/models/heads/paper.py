"""The heads of the FCN paper as its authors' code has them: nothing is padded, and everything is cropped to fit.

Long, Shelhamer, Darrell, CVPR 2015, section 4.2.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from fcnlab.errors import ModelError
from fcnlab.models.heads.base import CoarseHead, MakeUpsampler, require
from fcnlab.models.heads.skip import AT_ONCE, zero
from fcnlab.models.upsampler import crop


class PaperHead(CoarseHead):
    """FCN-32s, FCN-16s and FCN-8s on one of the paper's nets.

    As `SkipHead` fusing by sum, with two differences. All scores start at zero, the deepest ones too. And the nets pad
    their input, so no map begins at the image's corner: the transposed convolutions, of kernel 2s and padded nowhere,
    begin earlier still, and from `centres`, the pixels at which the maps begin, follows what is cropped so that
    everything lies where the image does. Where the image would fall between two pixels of kernel 2s, it is 2s - 1.

    Attributes:
        offsets: the rows and columns cut off the maps of the skips, by reduction.
        offset: the rows and columns cut off the scores at the image's size.
    """

    def __init__(
        self,
        channels: Mapping[int, int],
        classes: int,
        make_upsampler: MakeUpsampler,
        centres: Mapping[int, float],
        *,
        stride: int,
        at_once: bool = False,
    ) -> None:
        """
        Raises:
            ModelError: a map that the head reads is not among `channels`, or `centres` do not say where it begins or
                say that no crop aligns it.
        """
        super().__init__()
        self.output_stride = stride
        self.reductions = [r for r in (32, 16, 8) if r >= stride]
        require(channels, self.reductions, f"a paper head of stride {stride}")
        if not set(self.reductions) <= set(centres):
            raise ModelError("a paper head needs a backbone that says where its maps begin; use one of the paper's")
        self.scales = AT_ONCE if at_once else dict.fromkeys(AT_ONCE, 1.0)
        self.score = nn.ModuleDict({str(r): _silent(channels[r], classes) for r in self.reductions})
        self.fuse = nn.ModuleDict()
        self.offsets: dict[int, int] = {}
        begin = centres[32]
        for r in self.reductions[1:]:
            self.fuse[str(r)] = make_upsampler(classes, 2, f"to{r}", kernel=4, padding=0)
            begin = _begin(begin, r, kernel=4)
            self.offsets[r] = _offset((begin - centres[r]) / r, f"the map at stride {r}")
        kernel = 2 * stride if _begin(begin, 1, 2 * stride).is_integer() else 2 * stride - 1
        self.upsample = make_upsampler(classes, stride, "image", kernel=kernel, padding=0)
        self.offset = _offset(-_begin(begin, 1, kernel), "the image")

    def forward(self, features: Mapping[int, Tensor], size: tuple[int, int]) -> Tensor:
        """Map features by reduction to scores [B, classes, *size]."""
        return crop(self.upsample(self.coarse(features)), size, self.offset)

    def coarse(self, features: Mapping[int, Tensor]) -> Tensor:
        """Map features by reduction to scores [B, classes, h, w] that begin before the image does."""
        deepest, *skips = self.reductions
        scores: Tensor = self.score[str(deepest)](features[deepest])
        for r in skips:
            scores = self.fuse[str(r)](scores)
            map_ = crop(features[r], scores.shape[-2:], self.offsets[r])
            scores = scores + self.score[str(r)](map_ if self.scales[r] == 1 else self.scales[r] * map_)
        return scores


def _begin(centre: float, step: int, kernel: int) -> float:
    """The pixel where a transposed convolution's output begins: its first kernel is centred on the first feature.

    `centre` is that feature's pixel; `step` is how many pixels apart the output's are.
    """
    return centre - step * (kernel - 1) / 2


def _offset(offset: float, what: str) -> int:
    if offset < 0 or not offset.is_integer():
        raise ModelError(f"a paper head cannot align {what}: it begins {offset:g} steps after the scores")
    return int(offset)


def _silent(channels: int, classes: int) -> nn.Conv2d:
    """A 1x1 convolution that starts at zero; a random start was neither better nor faster: section 4.3."""
    score = nn.Conv2d(channels, classes, kernel_size=1)
    zero(score)
    return score
