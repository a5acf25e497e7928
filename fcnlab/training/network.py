"""Evaluation mode of a network, for measurements that run it once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


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
