"""A network from pixels to probabilities, for export to runtimes without fcnlab."""

from __future__ import annotations

from fractions import Fraction

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fcnlab.data.batches import to_uint8_scale
from fcnlab.inference.description import ModelDescription
from fcnlab.models import FCN


class ExportModel(nn.Module):
    """An FCN with normalization, resizing by `score_scale` and softmax included.

    Args:
        network: the FCN.
        description: its metadata.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: FCN, description: ModelDescription) -> None:
        super().__init__()
        self.network = network
        self.scale = description.score_scale
        for name, values in (("mean", description.mean), ("std", description.std)):
            self.register_buffer(name, to_uint8_scale(values)[:, None, None])

    def forward(self, images: Tensor) -> Tensor:
        """Compute probabilities, like `fcnlab.training.prediction.compute_scores` with a softmax.

        Args:
            images: uint8 [B, C, H, W] with the channels of the dataset, RGB by default, of any size that is at least
                1 x 1 after resizing.

        Returns:
            Probabilities, float32 [B, num_classes, H, W].
        """
        height, width = images.shape[-2:]
        inputs = (images.float() - self.mean) / self.std
        if self.scale == 1:
            return torch.softmax(self.network(inputs), 1)
        size = (_round_scaled(self.scale, height), _round_scaled(self.scale, width))
        inputs = F.interpolate(inputs, size=size, mode="bilinear", align_corners=False, antialias=True)
        scores = F.interpolate(self.network(inputs), size=(height, width), mode="bilinear", align_corners=False)
        return torch.softmax(scores, 1)


def _round_scaled(factor: float, length: int) -> int:
    """Return the length that `fcnlab.training.protocol.scale_size` returns, computed in integers for torch and ONNX."""
    exact = Fraction(str(factor))
    double = 2 * exact.denominator
    halves = 2 * exact.numerator * length + exact.denominator
    up = halves // double
    tie = 1 - (halves % double + double - 1) // double
    return up - tie * (up % 2)
