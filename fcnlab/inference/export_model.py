"""A model as one network from pixels to probabilities, for runtimes that know nothing of fcnlab."""

from __future__ import annotations

from fractions import Fraction

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fcnlab.data.batches import to_uint8_scale
from fcnlab.inference.description import Description
from fcnlab.models import FCN


class ExportModel(nn.Module):
    """Maps RGB images, uint8 [B, 3, H, W], to probabilities, float32 [B, classes, H, W].

    Normalisation, the recipe's `score_scale` and the softmax are inside. Any B, H and W will do, as long as a pixel is
    left of either side after scaling.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: FCN, description: Description) -> None:
        super().__init__()
        self.network = network
        self.scale = description.score_scale
        for name, values in (("mean", description.mean), ("std", description.std)):
            self.register_buffer(name, to_uint8_scale(values)[:, None, None])

    def forward(self, images: Tensor) -> Tensor:
        """The probabilities; `fcnlab.training.inference.compute_scores` is the model of it."""
        height, width = images.shape[-2:]
        seen = (images.float() - self.mean) / self.std
        if self.scale == 1:
            return torch.softmax(self.network(seen), 1)
        size = (_rounded(self.scale, height), _rounded(self.scale, width))
        seen = F.interpolate(seen, size=size, mode="bilinear", align_corners=False, antialias=True)
        scores = F.interpolate(self.network(seen), size=(height, width), mode="bilinear", align_corners=False)
        return torch.softmax(scores, 1)


def _rounded(factor: float, length: int) -> int:
    """`round(factor * length)` in whole numbers, which a traced length can be put through and ONNX has operators for.

    Half goes to the even neighbour, as Python's `round` has it.
    """
    exact = Fraction(str(factor))
    double = 2 * exact.denominator
    halves = 2 * exact.numerator * length + exact.denominator
    up = halves // double
    tie = 1 - (halves % double + double - 1) // double
    return up - tie * (up % 2)
