"""Cross entropy over the pixels that count."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch.nn.functional as F
from torch import Tensor

from fcnlab.data.base import IGNORE

Loss = Callable[[Tensor, Tensor], Tensor]
"""(scores [B, C, H, W], labels uint8 [B, H, W] with 255 for ignored) -> the loss, a scalar."""


def pixel_mean(scores: Tensor, labels: Tensor) -> Tensor:
    """Mean over all counted pixels of the batch; 0 where none counts."""
    losses = _per_pixel(scores, labels)
    return losses.sum() / (labels != IGNORE).sum().clamp(min=1)


def image_mean_sum(scores: Tensor, labels: Tensor) -> Tensor:
    """Mean over each image's counted pixels, summed over the batch: d2l, chapter 14.11."""
    losses = _per_pixel(scores, labels).flatten(1)
    counted = (labels != IGNORE).flatten(1).sum(1).clamp(min=1)
    return (losses.sum(1) / counted).sum()


def _per_pixel(scores: Tensor, labels: Tensor) -> Tensor:
    """Losses [B, H, W] in float32, 0 at ignored pixels."""
    return F.cross_entropy(scores.float(), labels.long(), ignore_index=IGNORE, reduction="none")


REDUCTIONS: Mapping[str, Loss] = MappingProxyType({"pixel_mean": pixel_mean, "image_mean_sum": image_mean_sum})
