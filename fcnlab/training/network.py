"""Evaluation mode and input channels of a network, for measurements that run it once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from fcnlab.models import FCN


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Put a network into evaluation mode for a block of code, and restore its mode.

    Args:
        model: the network.
    """
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


def get_in_channels(model: nn.Module) -> int:
    """Return the number of channels of the images of a network; 3 for one that is not an `FCN`.

    Args:
        model: the network.
    """
    return model.backbone.in_channels if isinstance(model, FCN) else 3
