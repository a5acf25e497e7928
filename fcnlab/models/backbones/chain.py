"""A body that is a chain of layers, some of which are computed again in the backward pass instead of being kept.

Chen, Xu, Zhang, Guestrin, Training Deep Nets with Sublinear Memory Cost, 2016; `torch.utils.checkpoint`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint


def chained(body: nn.Module, x: Tensor, taps: Collection[str], again: Collection[str]) -> dict[str, Tensor]:
    """Send x through the children of a body, one after the other, up to the last tap; the output of each tap.

    Of the children up to a tap that is in `again` (from the tap before) nothing is kept for the backward pass but what
    goes in: what lies between is computed a second time when it is needed. Outputs and gradients are the same.
    """
    found: dict[str, Tensor] = {}
    run: list[nn.Module] = []
    for name, layer in body.named_children():
        run.append(layer)
        if name in taps:
            x = found[name] = _computed_again(run, x) if name in again else _in_turn(run, x)
            run = []
    return found


def _in_turn(layers: Sequence[nn.Module], x: Tensor) -> Tensor:
    for layer in layers:
        x = layer(x)
    return x


def _computed_again(layers: Sequence[nn.Module], x: Tensor) -> Tensor:
    if not torch.is_grad_enabled():
        return _in_turn(layers, x)
    result: Tensor = checkpoint(
        partial(_in_turn, layers), x, use_reentrant=False, context_fn=lambda: (nullcontext(), _seen_already(layers))
    )
    return result


@contextmanager
def _seen_already(layers: Sequence[nn.Module]) -> Iterator[None]:
    """Batch norms normalise by the statistics of the batch as ever, but do not take them up a second time."""
    norms = [norm for layer in layers for norm in layer.modules() if isinstance(norm, _BatchNorm)]
    before = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, _copied(norm.num_batches_tracked)
    try:
        yield
    finally:
        for norm, (momentum, tracked) in zip(norms, before, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, tracked


def _copied(tracked: Tensor | None) -> Tensor | None:
    """A number of batches to count on from; SyncBatchNorm insists on one."""
    return None if tracked is None else tracked.clone()
