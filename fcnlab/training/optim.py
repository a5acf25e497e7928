"""Optimisers and learning-rate schedules as plain functions."""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import nn
from torch.optim import SGD, AdamW, Optimizer

Schedule = Callable[[int], float]
"""step -> the factor on every learning rate."""


def sgd(model: nn.Module, *, lr: float, momentum: float, weight_decay: float, nesterov: bool) -> Optimizer:
    """`torch.optim.SGD` over what learns."""
    return SGD(_learned(model), lr=lr, momentum=momentum, weight_decay=weight_decay, nesterov=nesterov)


def adamw(model: nn.Module, *, lr: float, weight_decay: float) -> Optimizer:
    """`torch.optim.AdamW` over what learns."""
    return AdamW(_learned(model), lr=lr, weight_decay=weight_decay)


def _learned(model: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def schedule(name: str, *, steps: int, warmup: int = 0, power: float = 0.9) -> Schedule:
    """The factor at each of `steps` steps: a linear warm-up, then `constant`, `poly` or `cosine` down to zero.

    `poly` is (1 - t)^power with t the part that is done: Chen et al., DeepLab, PAMI 2018, section 4.1.
    """
    decay = {
        "constant": lambda _: 1.0,
        "poly": lambda done: (1 - done) ** power,
        "cosine": lambda done: (1 + math.cos(math.pi * done)) / 2,
    }[name]

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / (warmup + 1)
        return float(decay((step - warmup) / max(1, steps - warmup)))

    return factor


def set_rates(optimizer: Optimizer, factor: float) -> None:
    """Set every group's learning rate to its initial one times `factor`."""
    for group in optimizer.param_groups:
        group["lr"] = group.setdefault("initial_lr", group["lr"]) * factor
