"""Models with the weights of a training."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from fcnlab.config.variant import Variant
from fcnlab.extensions import Extensions
from fcnlab.models import FCN
from fcnlab.models.fcn import load_weights_of_trial
from fcnlab.trial.build import build_model


def restore_model(
    variant: Variant,
    num_classes: int,
    state: Mapping[str, Tensor],
    source: str,
    *,
    extensions: Extensions = Extensions(),  # noqa: B008 - frozen
    in_channels: int = 3,
) -> FCN:
    """Build a variant with given weights. Pretrained weights of its backbone are not loaded.

    Args:
        variant: the variant.
        num_classes: number of classes.
        state: state dict of the model.
        source: origin of the weights, for error messages.
        extensions: extensions that may contain the head.
        in_channels: channels of the images.

    Returns:
        The model in evaluation mode.

    Raises:
        ModelError: the weights do not fit the variant.
    """
    model = build_model(variant.from_scratch(), num_classes, seed=0, extensions=extensions, in_channels=in_channels)
    load_weights_of_trial(model, state, source)
    return model.eval()
