"""A Fully Convolutional Network: Long, Shelhamer, Darrell, CVPR 2015."""

from __future__ import annotations

from torch import Tensor, nn

from fcnlab.models.backbone import Backbone
from fcnlab.models.heads import Head


class FCN(nn.Module):
    """A backbone and a head. Scores come at exactly the size of the images, whatever it is."""

    def __init__(self, backbone: Backbone, head: Head) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head

    def forward(self, images: Tensor) -> Tensor:
        """Map normalised images [B, 3, H, W] to class scores (logits) [B, classes, H, W]."""
        return self.head(self.backbone(images), images.shape[-2:])
