"""What a model costs: parameters and multiply-accumulates."""

from __future__ import annotations

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


def parameters(module: nn.Module, *, trainable: bool = False) -> int:
    """How many numbers a module holds as parameters; with `trainable`, those that learn."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad or not trainable)


@torch.no_grad()
def gmacs(model: nn.Module, size: tuple[int, int]) -> float:
    """Billions of multiply-accumulates of one forward of one image [1, 3, *size].

    Half of what torch's FlopCounterMode counts: a multiply and an add are two floating-point operations.
    """
    device = next(model.parameters()).device
    training = model.training
    model.eval()
    with FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, 3, *size, device=device))
    model.train(training)
    return counter.get_total_flops() / 2e9
