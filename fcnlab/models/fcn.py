"""A Fully Convolutional Network: Long, Shelhamer, Darrell, CVPR 2015."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from fcnlab.errors import ModelError
from fcnlab.models.backbones.base import Backbone
from fcnlab.models.heads import CoarseHead, Head


class FCN(nn.Module):
    """A backbone with a head; the scores have the size of the images.

    Attributes:
        backbone: the layers from images to feature maps.
        head: the layers from feature maps to class scores.
    """

    def __init__(self, backbone: Backbone, head: Head) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head

    def forward(self, images: Tensor) -> Tensor:
        """Compute the class scores of a batch.

        Args:
            images: normalized images [B, C, H, W].

        Returns:
            Logits [B, num_classes, H, W].
        """
        return self.head(self.backbone(images), images.shape[-2:])

    def training_scores(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Compute the class scores and the auxiliary scores of a batch.

        Args:
            images: normalized images [B, C, H, W].

        Returns:
            Logits [B, num_classes, H, W], and those of the auxiliary head or None.
        """
        features, (height, width) = self.backbone(images), images.shape[-2:]
        return self.head(features, (height, width)), self.head.auxiliary(features, (height, width))

    def coarse_scores(self, images: Tensor) -> Tensor:
        """Compute the scores before the last upsampling of a `CoarseHead`.

        Args:
            images: normalized images [B, C, H, W].

        Returns:
            Logits [B, num_classes, h, w].
        """
        assert isinstance(self.head, CoarseHead), "only heads of type CoarseHead have coarse scores"
        return self.head.coarse(self.backbone(images))


def separate_tensors(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a state dict as safetensors can store it: contiguous tensors that share no memory.

    Args:
        state: state dict, in which several names may have one tensor, as with tied weights.
    """
    separate: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, value in state.items():
        value = value.contiguous()
        storage = value.untyped_storage()._cdata
        separate[name] = value.clone() if storage in seen else value
        seen.add(storage)
    return separate


def load_weights_of_trial(model: FCN, state: Mapping[str, Tensor], source: str) -> None:
    """Load all weights of a trained FCN.

    Args:
        model: changed in place, unless the weights do not fit.
        state: state dict of the trained FCN.
        source: the file, for messages.

    Raises:
        ModelError: keys or shapes differ; one line names the first key of each difference.
    """
    expected = model.state_dict()
    missing, unexpected = sorted(expected.keys() - state.keys()), sorted(state.keys() - expected.keys())
    mismatched = [key for key in expected if key in state and state[key].shape != expected[key].shape]
    differences = [f"{len(missing)} of {len(expected)} keys are missing, first '{missing[0]}'"] if missing else []
    differences += [f"the network has no key for {len(unexpected)}, first '{unexpected[0]}'"] if unexpected else []
    if mismatched:
        shapes = (
            f"has shape {tuple(state[mismatched[0]].shape)}, the network's is {tuple(expected[mismatched[0]].shape)}"
        )
        more = f" ({len(mismatched) - 1} more keys differ)" if len(mismatched) > 1 else ""
        differences.append(f"'{mismatched[0]}' {shapes}{more}")
    if differences:
        raise ModelError(
            f"{source}: these are not weights of the trial's network: {'; '.join(differences)}; restore the file, or "
            "run the trial again"
        )
    model.load_state_dict(dict(state))


def load_matching_weights(model: FCN, state: Mapping[str, Tensor]) -> None:
    """Initialize a model from the weights of another FCN.

    The whole backbone is loaded, and the weights of the head that match by name and shape; all other weights keep
    their initialization. The paper trains FCN-16s from FCN-32s in this way (Long et al., CVPR 2015, section 4.2).

    Args:
        model: changed in place.
        state: state dict of the other FCN.

    Raises:
        ModelError: the backbones differ; the message names the first key that does not match.
    """
    expected = model.state_dict()
    fitting = {key: state[key] for key, value in expected.items() if key in state and state[key].shape == value.shape}
    unmatched = [key for key in expected if key.startswith("backbone.") and key not in fitting]
    if unmatched:
        problem = f"has shape {tuple(state[unmatched[0]].shape)}" if unmatched[0] in state else "is missing"
        raise ModelError(
            f"init_from: the other trial has a different backbone: {len(unmatched)} keys do not match; the first, "
            f"'{unmatched[0]}', {problem}"
        )
    model.load_state_dict(fitting, strict=False)
