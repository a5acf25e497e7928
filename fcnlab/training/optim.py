"""Optimisers over the parts of a network, learning-rate schedules, and the moving average of weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Literal

import torch
from torch import nn
from torch.optim import SGD, Adam, Adamax, AdamW, NAdam, Optimizer, RAdam, RMSprop
from torch.optim.swa_utils import AveragedModel

from fcnlab.models import FCN, TransposedUpsampler

Schedule = Callable[[int], float]
"""step -> the factor on every learning rate."""

OPTIMIZERS: Mapping[str, type[Optimizer]] = {
    "sgd": SGD,
    "adam": Adam,
    "adamax": Adamax,
    "adamw": AdamW,
    "nadam": NAdam,
    "radam": RAdam,
    "rmsprop": RMSprop,
}
"""torch's optimisers by the names that recipes give them."""

FUSED_OPTIMIZERS = ("sgd", "adam", "adamw")
"""The optimisers that have fused CUDA kernels."""


@dataclass(frozen=True)
class LrFactors:
    """Factors on the learning rate: one for each part, and one more for the biases of convolutions in any part."""

    backbone: float = 1.0
    head: float = 1.0
    upsampler: float = 1.0
    bias: float = 1.0


def create_optimizer(
    name: str,
    model: FCN,
    *,
    lr: float,
    weight_decay: float,
    factors: LrFactors = LrFactors(),
    decay: Literal["all", "weights"] = "all",
    **options: Any,
) -> Optimizer:
    """One of `OPTIMIZERS` over what learns, in groups of one learning rate and weight decay each.

    On CUDA the optimiser's fused kernels are used where it has them: a few launches a step instead of dozens.
    """
    groups = [
        {"params": parameters, "lr": factor * lr, "weight_decay": weight_decay if decays else 0.0}
        for (factor, decays), parameters in _groups(model, factors, decay).items()
    ]
    if name in FUSED_OPTIMIZERS and next(model.parameters()).is_cuda:
        options["fused"] = True
    return OPTIMIZERS[name](groups, lr=lr, weight_decay=weight_decay, **options)  # type: ignore[call-arg]


def _groups(model: FCN, factors: LrFactors, decay: str) -> dict[tuple[float, bool], list[nn.Parameter]]:
    """The parameters that learn by (factor on the learning rate, whether they decay)."""
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for part, module, name, parameter in _learned(model):
        of_norm = not isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear) and parameter.ndim <= 1
        bias = name == "bias" and not of_norm
        factor = getattr(factors, part) * (factors.bias if bias else 1.0)
        groups.setdefault((factor, decay == "all" or not (of_norm or bias)), []).append(parameter)
    return groups


def _learned(model: FCN) -> Iterator[tuple[str, nn.Module, str, nn.Parameter]]:
    """Every parameter that learns, once: its part, the module that owns it, its name there."""
    seen: set[int] = set()
    for path, module in model.named_modules():
        part = path.partition(".")[0]
        if isinstance(module, TransposedUpsampler):
            part = "upsampler"
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.requires_grad and id(parameter) not in seen:
                seen.add(id(parameter))
                yield part, module, name, parameter


def create_schedule(
    name: str,
    *,
    steps: int,
    warmup: int = 0,
    power: float = 0.9,
    milestones: Sequence[float] = (0.6, 0.85),
    gamma: float = 0.1,
) -> Schedule:
    """The factor at each of `steps` steps: a linear warm-up, then `constant`, or down by `poly`, `cosine` or `step`.

    With t the part of what follows the warm-up that is done, `poly` is (1 - t)^power (Chen et al., DeepLab, PAMI 2018,
    section 4.1) and `step` is gamma to the number of milestones that t has passed.
    """
    decay: Callable[[float], float] = {
        "constant": lambda _: 1.0,
        "poly": lambda done: (1 - done) ** power,
        "cosine": lambda done: (1 + math.cos(math.pi * done)) / 2,
        "step": lambda done: gamma ** sum(done >= milestone for milestone in milestones),
    }[name]

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / (warmup + 1)
        return float(decay((step - warmup) / max(1, steps - warmup)))

    return factor


def set_learning_rates(optimizer: Optimizer, factor: float) -> None:
    """Set every group's learning rate to its initial one times `factor`."""
    for group in optimizer.param_groups:
        group["lr"] = group.setdefault("initial_lr", group["lr"]) * factor


class MovingAverage(AveragedModel):
    """An exponential moving average of a model's weights and statistics, to be updated after every step.

    The first steps average over fewer: the decay of step n is at most (1 + n) / (10 + n), so that the random start of
    a short training is forgotten, as in TensorFlow's ExponentialMovingAverage. The counter of steps stays on the CPU,
    so that no step waits for the device.
    """

    def __init__(self, model: FCN, decay: float) -> None:
        """
        Args:
            model: whose parameters and buffers are averaged; the average starts as a copy of it, on its device.
            decay: of the average, between 0 and 1.
        """
        super().__init__(model, use_buffers=True)
        self._decay = decay

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        """Take in the model as it is now; the first call copies it."""
        n = float(self.n_averaged)
        weight = 1 - min(self._decay, (1 + n) / (10 + n)) if n else 1.0
        kept, current = (list(chain(module.parameters(), module.buffers())) for module in (self.module, model))
        floats = [i for i, tensor in enumerate(kept) if tensor.is_floating_point()]
        if n:
            torch._foreach_lerp_([kept[i] for i in floats], [current[i] for i in floats], weight)
        copied = set(range(len(kept))) - set(floats) if n else range(len(kept))
        for i in copied:
            kept[i].copy_(current[i])
        self.n_averaged += 1
