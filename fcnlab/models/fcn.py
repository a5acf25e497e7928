"""A Fully Convolutional Network: Long, Shelhamer, Darrell, CVPR 2015."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from fcnlab.errors import ModelError
from fcnlab.models.backbones.base import Backbone
from fcnlab.models.heads import CoarseHead, Head


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

    def coarse_scores(self, images: Tensor) -> Tensor:
        """The scores [B, classes, h, w] before a `CoarseHead` upsamples them for the last time."""
        assert isinstance(self.head, CoarseHead), "asked for where it is known"
        return self.head.coarse(self.backbone(images))


def take_over(model: FCN, state: Mapping[str, Tensor]) -> None:
    """Start from the weights of another FCN: its whole backbone, and what of its head fits by name and shape.

    What the other has not, such as the scores of a further skip, or has otherwise, such as an upsampling by another
    factor or scores of other classes, starts as it does anyway: so the paper trains FCN-16s on top of FCN-32s (Long et
    al., CVPR 2015, section 4.2).

    Raises:
        ModelError: the backbone is another; the message names the first key that does not fit.
    """
    own = model.state_dict()
    fitting = {key: state[key] for key, value in own.items() if key in state and state[key].shape == value.shape}
    other = [key for key in own if key.startswith("backbone.") and key not in fitting]
    if other:
        there = f"has shape {tuple(state[other[0]].shape)}" if other[0] in state else "is not there"
        raise ModelError(
            f"the trial to start from has another backbone: of {len(other)} keys that do not fit, the first, "
            f"'{other[0]}', {there}"
        )
    model.load_state_dict(fitting, strict=False)
