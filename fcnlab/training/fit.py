"""The training loop, to be read from top to bottom."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import nn
from torch.optim import Optimizer

from fcnlab.data.batches import TrainingBatches
from fcnlab.training.losses import Loss
from fcnlab.training.optim import Schedule, set_rates


class Diverged(RuntimeError):
    """The loss is no longer a number."""


@dataclass(frozen=True)
class Epoch:
    """What one epoch of training gave: its mean loss a step, last learning rate, images and wall-clock seconds."""

    epoch: int
    loss: float
    lr: float
    images: int
    seconds: float


def fit(
    model: nn.Module,
    batches: TrainingBatches,
    *,
    epochs: int,
    start: int,
    loss: Loss,
    optimizer: Optimizer,
    factor: Schedule,
    autocast: Callable[[], AbstractContextManager[object]],
    after_epoch: Callable[[Epoch], None],
) -> None:
    """Train from epoch `start` up to `epochs`, calling `after_epoch` at the end of each.

    The loss is summed on the device and read once an epoch, so that no step waits for the host.

    Raises:
        Diverged: the loss of an epoch is infinite or not a number.
    """
    for epoch in range(start, epochs):
        began = time.perf_counter()
        model.train()
        total, images_seen = torch.zeros((), dtype=torch.float64), 0
        for step, (images, labels) in enumerate(batches.epoch(epoch), start=epoch * batches.steps):
            set_rates(optimizer, factor(step))
            with autocast():
                scores = model(images)
            value = loss(scores, labels)
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            total = total.to(value.device) + value.detach()
            images_seen += len(images)
        mean = float(total) / batches.steps
        if not torch.isfinite(total):
            raise Diverged(f"the loss of epoch {epoch + 1} is {mean}; a smaller learning rate may help")
        rate = optimizer.param_groups[0]["lr"]
        after_epoch(Epoch(epoch + 1, mean, rate, images_seen, time.perf_counter() - began))
