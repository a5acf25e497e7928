"""What every head is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from torch import Tensor, nn

from fcnlab.errors import ModelError


class MakeUpsampler(Protocol):
    """Makes the upsampler of one stage of a head."""

    def __call__(self, classes: int, factor: int, stage: str, **geometry: int) -> nn.Module:
        """A module (scores [B, classes, h, w], size) -> [B, classes, *size], about `factor` times as large.

        `stage` says where it leads: `to16`, `to8`, `to4` or `image`. `geometry` (kernel, padding) is for heads whose
        transposed convolutions are not the usual ones.
        """
        ...


class Head(nn.Module):
    """Turns feature maps into class scores.

    Attributes:
        output_stride: how many pixels of the image lie between two of its scores, before they are brought up to it.
        auxiliary_map: the reduction of the map that auxiliary scores are of; None in a head that has none.
    """

    output_stride: int
    auxiliary_map: int | None = None

    def forward(self, features: Mapping[int, Tensor], size: tuple[int, int]) -> Tensor:
        """Map features by reduction r, each [B, channels[r], ~H/r, ~W/r], to scores [B, classes, H, W]."""
        raise NotImplementedError

    def auxiliary(self, features: Mapping[int, Tensor], size: tuple[int, int]) -> Tensor | None:  # noqa: ARG002
        """Scores [B, classes, H, W] that are only trained on, or None in a head that has none."""
        return None


class CoarseHead(Head):
    """A head that ends in an upsampling: it makes coarse scores, and brings them to the image's size at once.

    Attributes:
        upsample: (scores [B, classes, h, w], size) -> [B, classes, *size].
        offset: the rows and columns that are cut off what `upsample` gives, above and to the left.
    """

    upsample: nn.Module
    offset: int = 0

    def coarse(self, features: Mapping[int, Tensor]) -> Tensor:
        """Map features by reduction to scores [B, classes, h, w], a `output_stride`-th of the image's size."""
        raise NotImplementedError


def require(channels: Mapping[int, int], reductions: list[int], what: str) -> None:
    """Check that the backbone has the maps that a head reads.

    Raises:
        ModelError: one is missing; the message names those that are there.
    """
    missing = [r for r in reductions if r not in channels]
    if missing:
        have = ", ".join(map(str, sorted(channels)))
        raise ModelError(f"{what} needs features at stride {missing[0]}; the backbone has {have}")
