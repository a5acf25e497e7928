"""The heads of the FCN paper with the crops of the authors' code.

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
    """FCN-32s, FCN-16s and FCN-8s for the paper's networks.

    It differs from `SkipHead` with `fusion="sum"` in two ways. All scores are initialized to zero, also the deepest.
    And the networks pad their input, so their maps start outside the image; the transposed convolutions, of kernel 2s
    without padding, start further outside. Maps and scores are cropped by offsets that follow from `centers`, so that
    all are aligned with the image. The last kernel is 2s - 1 where kernel 2s would be off by half a pixel.

    Attributes:
        offsets: rows and columns cropped from the maps of the skips, by reduction.
        offset: rows and columns cropped from the upsampled scores.
    """

    def __init__(
        self,
        channels: Mapping[int, int],
        num_classes: int,
        make_upsampler: MakeUpsampler,
        centers: Mapping[int, float],
        *,
        stride: int,
        at_once: bool = False,
    ) -> None:
        """Build the score layers and the upsamplers.

        Args:
            channels: channels of the feature maps, by reduction.
            num_classes: number of classes.
            make_upsampler: creates the upsampler of each stage.
            centers: pixel of the image at the center of the first feature of each map, by reduction.
            stride: stride of the shallowest map that is fused.
            at_once: scale the maps of the skips by `AT_ONCE`.

        Raises:
            ModelError: `channels` or `centers` lacks a map that the head reads, or no crop aligns it.
        """
        super().__init__()
        self.output_stride = stride
        self.reductions = [r for r in (32, 16, 8) if r >= stride]
        require(channels, self.reductions, f"a paper head of stride {stride}")
        if not set(self.reductions) <= set(centers):
            raise ModelError(
                "a paper head needs a backbone that specifies where its maps start; use one of the paper's"
            )
        self.scales = AT_ONCE if at_once else dict.fromkeys(AT_ONCE, 1.0)
        self.score = nn.ModuleDict(
            {str(r): nn.Conv2d(channels[r], num_classes, kernel_size=1) for r in self.reductions}
        )
        zero(self.score)  # section 4.3: random initialization was neither better nor faster
        self.fuse = nn.ModuleDict()
        self.offsets: dict[int, int] = {}
        begin = centers[32]
        for r in self.reductions[1:]:
            self.fuse[str(r)] = make_upsampler(num_classes, 2, f"to{r}", kernel=4, padding=0)
            begin = _begin(begin, r, kernel=4)
            self.offsets[r] = _offset((begin - centers[r]) / r, f"the map at stride {r}")
        kernel = 2 * stride if _begin(begin, 1, 2 * stride).is_integer() else 2 * stride - 1
        self.upsample = make_upsampler(num_classes, stride, "image", kernel=kernel, padding=0)
        self.offset = _offset(-_begin(begin, 1, kernel), "the image")

    def coarse(self, features: Mapping[int, Tensor]) -> Tensor:
        deepest, *skips = self.reductions
        scores: Tensor = self.score[str(deepest)](features[deepest])
        for r in skips:
            scores = self.fuse[str(r)](scores)
            map_ = crop(features[r], scores.shape[-2:], self.offsets[r])
            scores = scores + self.score[str(r)](map_ if self.scales[r] == 1 else self.scales[r] * map_)
        return scores


def _begin(center: float, step: int, kernel: int) -> float:
    """Return the first pixel of a transposed convolution's output, whose pixels have a distance of `step`."""
    return center - step * (kernel - 1) / 2


def _offset(offset: float, what: str) -> int:
    if offset < 0 or not offset.is_integer():
        raise ModelError(f"a paper head cannot align {what}: it starts {offset:g} steps after the scores")
    return int(offset)
