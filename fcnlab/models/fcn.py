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

    def training_scores(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """The scores, and beside them the auxiliary ones of a head that has them; both [B, classes, H, W]."""
        features, (height, width) = self.backbone(images), images.shape[-2:]
        return self.head(features, (height, width)), self.head.auxiliary(features, (height, width))
