"""Base classes of heads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from torch import Tensor, nn

from fcnlab.errors import ModelError
from fcnlab.models.upsampler import crop


class MakeUpsampler(Protocol):
    """Function that creates the upsampler of one stage of a head."""

    def __call__(self, num_classes: int, factor: int, stage: str, **geometry: int) -> nn.Module:
        """Create an upsampler: (scores [B, num_classes, h, w], size) -> [B, num_classes, *size].

        Args:
            num_classes: number of classes.
            factor: factor of upsampling.
            stage: output of the stage: `to16`, `to8`, `to4` or `image`.
            geometry: `kernel` and `padding` of heads with unusual transposed convolutions.

        Returns:
            A module.
        """
        ...


class Head(nn.Module):
    """Base class of the modules that compute class scores from feature maps.

    A subclass is constructed with `channels`, `num_classes`, `make_upsampler` and the options of its registry entry. It
    sets `output_stride` and implements `forward`. Maps are named by their reduction r: their stride if the backbone is
    not dilated.

    Attributes:
        output_stride: stride of the scores before the last upsampling.
        auxiliary_map: reduction of the map of the auxiliary head; None if there is none. A subclass that implements
            `auxiliary` sets it.
    """

    output_stride: int
    auxiliary_map: int | None = None

    def forward(self, features: Mapping[int, Tensor], size: tuple[int, int]) -> Tensor:
        """Compute the class scores from feature maps.

        Args:
            features: maps by reduction r, each [B, channels[r], ~H/r, ~W/r].
            size: height H and width W of the images.

        Returns:
            Logits [B, num_classes, H, W].
        """
        raise NotImplementedError

    def auxiliary(self, features: Mapping[int, Tensor], size: tuple[int, int]) -> Tensor | None:  # noqa: ARG002
        """Compute the scores of the auxiliary head, which is only used in training.

        Args:
            features: maps by reduction.
            size: height H and width W of the images.

        Returns:
            Logits [B, num_classes, H, W]; None if there is no auxiliary head.
        """
        return None


class CoarseHead(Head):
    """Base class of heads that compute coarse scores and upsample them to the size of the image in one step.

    Loss and prediction of these heads can be computed in blocks of the coarse scores, without the scores of all pixels
    (`fcnlab.training.fused_loss`). A subclass implements `coarse` instead of `forward`.

    Attributes:
        upsample: (scores [B, num_classes, h, w], size) -> [B, num_classes, *size].
        offset: rows and columns that are cropped from the upsampled scores at the top and left.
    """

    upsample: nn.Module
    offset: int = 0

    def forward(self, features: Mapping[int, Tensor], size: tuple[int, int]) -> Tensor:
        coarse = self.coarse(features)
        # With an offset, the upsampler must not crop: it would keep the upper left.
        scores: Tensor = self.upsample(coarse) if self.offset else self.upsample(coarse, size)
        return crop(scores, size, self.offset) if self.offset else scores

    def coarse(self, features: Mapping[int, Tensor]) -> Tensor:
        """Compute the scores before the last upsampling.

        Args:
            features: maps by reduction.

        Returns:
            Logits [B, num_classes, h, w], about 1/output_stride of the size of the images.
        """
        raise NotImplementedError


def require(channels: Mapping[int, int], reductions: list[int], what: str) -> None:
    """Check that a backbone has the feature maps that a head reads.

    Args:
        channels: channels of the backbone's maps, by reduction.
        reductions: reductions of the maps that the head reads.
        what: subject of the error message.

    Raises:
        ModelError: a map is missing; the message names the existing ones.
    """
    missing = [r for r in reductions if r not in channels]
    if missing:
        have = ", ".join(map(str, sorted(channels)))
        raise ModelError(f"{what} needs features at stride {missing[0]}; the backbone has {have}")
