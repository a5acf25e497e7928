"""Activation checkpointing of networks that are a sequence of layers.

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


def run_chain(body: nn.Module, x: Tensor, taps: Collection[str], checkpointed: Collection[str]) -> dict[str, Tensor]:
    """Run the children of a network in sequence up to the last tap.

    Args:
        body: network whose children are a sequence.
        x: its input [B, C, H, W].
        taps: names of the children whose outputs are returned.
        checkpointed: taps before which (since the previous tap) activations are recomputed in the backward pass
            instead of being kept.

    Returns:
        The output of each tap, by name.
    """
    found: dict[str, Tensor] = {}
    run: list[nn.Module] = []
    for name, layer in body.named_children():
        run.append(layer)
        if name in taps:
            x = found[name] = _run_checkpointed(run, x) if name in checkpointed else _run(run, x)
            run = []
    return found


def _run(layers: Sequence[nn.Module], x: Tensor) -> Tensor:
    for layer in layers:
        x = layer(x)
    return x


def _run_checkpointed(layers: Sequence[nn.Module], x: Tensor) -> Tensor:
    if not torch.is_grad_enabled():
        return _run(layers, x)
    output: Tensor = checkpoint(
        partial(_run, layers), x, use_reentrant=False, context_fn=lambda: (nullcontext(), _keep_statistics(layers))
    )
    return output


@contextmanager
def _keep_statistics(layers: Sequence[nn.Module]) -> Iterator[None]:
    """Keep batch norms from updating their running statistics a second time."""
    norms = [norm for layer in layers for norm in layer.modules() if isinstance(norm, _BatchNorm)]
    before = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm, (_, tracked) in zip(norms, before, strict=True):
        # A copy of the counter, because SyncBatchNorm requires one.
        norm.momentum, norm.num_batches_tracked = 0.0, None if tracked is None else tracked.clone()
    try:
        yield
    finally:
        for norm, (momentum, tracked) in zip(norms, before, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, tracked
