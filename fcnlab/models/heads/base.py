"""What every head is."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor, nn

MakeUpsampler = Callable[[int, int], nn.Module]
"""(classes, factor) -> a module that maps [B, classes, h, w] to [B, classes, factor*h, factor*w]."""


class Head(nn.Module):
    """Turns feature maps into class scores."""

    def forward(self, features: Mapping[int, Tensor], size: tuple[int, int]) -> Tensor:
        """Map features by reduction r, each [B, channels[r], ~H/r, ~W/r], to scores [B, classes, H, W]."""
        raise NotImplementedError


def crop(scores: Tensor, size: tuple[int, int]) -> Tensor:
    """Cut [B, C, h, w] to `size`, keeping the upper left: feature 0 covers pixel 0, so that is where grids align."""
    return scores[..., : size[0], : size[1]]
