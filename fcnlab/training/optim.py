"""Optimizers with parameter groups, learning-rate schedules, and the moving average of weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, Literal

import torch
from torch import nn
from torch.optim import SGD, Adam, Adamax, AdamW, NAdam, Optimizer, RAdam, RMSprop
from torch.optim.swa_utils import AveragedModel

from fcnlab.config.optimizer import LrFactors
from fcnlab.models import FCN, TransposedUpsampler

Schedule = Callable[[int], float]
"""Maps a step to the factor on every learning rate."""

OPTIMIZERS: Mapping[str, type[Optimizer]] = {
    "sgd": SGD,
    "adam": Adam,
    "adamax": Adamax,
    "adamw": AdamW,
    "nadam": NAdam,
    "radam": RAdam,
    "rmsprop": RMSprop,
}
"""PyTorch's optimizers by their names in recipes."""

FUSED_OPTIMIZERS = ("sgd", "adam", "adamw")
"""Optimizers with fused CUDA kernels."""


def create_optimizer(
    name: str,
    model: FCN,
    *,
    lr: float,
    weight_decay: float,
    factors: LrFactors,
    decay: Literal["all", "weights"] = "all",
    **options: Any,
) -> Optimizer:
    """Create an optimizer of the trainable parameters, with one group for each learning rate and weight decay.

    On CUDA the fused kernels of the optimizer are used, if it has any: a few launches per step instead of dozens.

    Args:
        name: one of `OPTIMIZERS`.
        model: the network.
        lr: learning rate.
        weight_decay: weight decay.
        factors: factors on the learning rate.
        decay: apply weight decay to all parameters, or with `weights` not to biases and the vectors of other layers,
            such as the scale and shift of norms.
        **options: other arguments of the optimizer, such as momentum.

    Returns:
        The optimizer; its `defaults["lr"]` is `lr`.
    """
    groups = [
        {"params": parameters, "lr": factor * lr, "weight_decay": weight_decay if decays else 0.0}
        for (factor, decays), parameters in _group_parameters(model, factors, decay).items()
    ]
    if name in FUSED_OPTIMIZERS and next(model.parameters()).is_cuda:
        options["fused"] = True
    return OPTIMIZERS[name](groups, lr=lr, weight_decay=weight_decay, **options)  # type: ignore[call-arg]


def _group_parameters(model: FCN, factors: LrFactors, decay: str) -> dict[tuple[float, bool], list[nn.Parameter]]:
    """Group the trainable parameters by factor on the learning rate and by weight decay (true or false)."""
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for component, module, name, parameter in _iterate_trainable(model):
        of_norm = not isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear) and parameter.ndim <= 1
        bias = name == "bias" and not of_norm
        factor = getattr(factors, component) * (factors.bias if bias else 1.0)
        groups.setdefault((factor, decay == "all" or not (of_norm or bias)), []).append(parameter)
    return groups


def _iterate_trainable(model: FCN) -> Iterator[tuple[str, nn.Module, str, nn.Parameter]]:
    """Yield every trainable parameter once, with its component, the module that owns it, and its name there."""
    seen: set[int] = set()
    for path, module in model.named_modules():
        component = "upsampler" if isinstance(module, TransposedUpsampler) else path.partition(".")[0]
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.requires_grad and id(parameter) not in seen:
                seen.add(id(parameter))
                yield component, module, name, parameter


def create_schedule(
    name: str,
    *,
    steps: int,
    warmup: int = 0,
    power: float = 0.9,
    milestones: Sequence[float] = (0.6, 0.85),
    gamma: float = 0.1,
) -> Schedule:
    """Create a learning-rate schedule: a linear warm-up, then `constant`, `poly`, `cosine` or `step`.

    With t in 0..1 the progress after the warm-up, `poly` is (1 - t)^power (Chen et al., DeepLab, PAMI 2018, section
    4.1), `cosine` is half a cosine from 1 to 0, and `step` is gamma^(number of milestones up to t). After the last step
    t remains 1.

    Args:
        name: `constant`, `poly`, `cosine` or `step`.
        steps: total number of steps.
        warmup: number of warm-up steps.
        power: exponent of `poly`.
        milestones: fractions of the progress at which `step` decays.
        gamma: decay of `step`.

    Returns:
        A function from a step to the factor on the learning rate.

    Example:
        >>> schedule = create_schedule("poly", steps=100, warmup=4, power=1.0)
        >>> schedule(0), schedule(4), schedule(52)
        (0.2, 1.0, 0.5)
    """
    decay: Callable[[float], float] = {
        "constant": lambda _: 1.0,
        "poly": lambda progress: (1 - progress) ** power,
        "cosine": lambda progress: (1 + math.cos(math.pi * progress)) / 2,
        "step": lambda progress: gamma ** sum(progress >= milestone for milestone in milestones),
    }[name]

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / (warmup + 1)
        return float(decay(min(1.0, (step - warmup) / max(1, steps - warmup))))

    return factor


def set_learning_rates(optimizer: Optimizer, factor: float) -> None:
    """Set the learning rate of every group to `factor` times its initial one.

    Args:
        optimizer: its groups are changed in place.
        factor: factor of the current step.
    """
    for group in optimizer.param_groups:
        group["lr"] = group.setdefault("initial_lr", group["lr"]) * factor


class MovingAverage(AveragedModel):
    """Exponential moving average of the weights and statistics of a model, to be updated after every step.

    The decay of step n is at most (1 + n) / (10 + n), as in TensorFlow's ExponentialMovingAverage, so that the initial
    weights do not dominate the average of a short training. The counter of steps is on the CPU, so that no step waits
    for the device.
    """

    def __init__(self, model: FCN, decay: float) -> None:
        """Start the average as a copy of the model.

        Args:
            model: its parameters and buffers are averaged; the average starts as a copy, on its device.
            decay: decay of the average, between 0 and 1.
        """
        super().__init__(model, use_buffers=True)
        self._decay = decay

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        """Add the current weights to the average; the first call copies them.

        Args:
            model: the model that was passed to the constructor.
        """
        n = float(self.n_averaged)
        weight = 1 - min(self._decay, (1 + n) / (10 + n)) if n else 1.0
        average, current = (list(chain(module.parameters(), module.buffers())) for module in (self.module, model))
        floats = [i for i, tensor in enumerate(average) if tensor.is_floating_point()]
        if n:
            torch._foreach_lerp_([average[i] for i in floats], [current[i] for i in floats], weight)
        copied = set(range(len(average))) - set(floats) if n else range(len(average))
        for i in copied:
            average[i].copy_(current[i])
        self.n_averaged += 1
