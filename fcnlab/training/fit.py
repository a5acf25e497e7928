"""The training loop, to be read from top to bottom."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel

from fcnlab.data.batches import TrainingBatches
from fcnlab.models import FCN
from fcnlab.training.fused import FusedUpsampleLoss
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
    model: FCN,
    batches: TrainingBatches,
    *,
    epochs: int,
    start: int,
    loss: Loss | FusedUpsampleLoss,
    optimizer: Optimizer,
    factor: Schedule,
    autocast: Callable[[], AbstractContextManager[object]],
    after_epoch: Callable[[Epoch], None],
    accumulate: int = 1,
    clip_norm: float | None = None,
    average: AveragedModel | None = None,
) -> None:
    """Train from epoch `start` up to `epochs`, calling `after_epoch` at the end of each.

    A batch goes through in `accumulate` equal parts, whose gradients add up to that of the whole. The gradient's norm
    is bounded by `clip_norm`. The loss is summed on the device and read once an epoch, so that no step waits for the
    host.

    Raises:
        Diverged: the loss of an epoch is infinite or not a number.
    """
    learned = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for epoch in range(start, epochs):
        began = time.perf_counter()
        model.train()
        total, images_seen = torch.zeros((), dtype=torch.float64), 0
        for step, (images, labels) in enumerate(batches.epoch(epoch), start=epoch * batches.steps):
            set_rates(optimizer, factor(step))
            optimizer.zero_grad()
            value = _backward(model, loss, images, labels, accumulate, autocast)
            if clip_norm is not None:
                clip_grad_norm_(learned, clip_norm)
            optimizer.step()
            if average is not None:
                average.update_parameters(model)
            total = total.to(value.device) + value
            images_seen += len(images)
        mean = float(total) / batches.steps
        if not torch.isfinite(total):
            raise Diverged(f"the loss of epoch {epoch + 1} is {mean}; a smaller learning rate may help")
        rate = optimizer.defaults["lr"] * factor((epoch + 1) * batches.steps - 1)
        after_epoch(Epoch(epoch + 1, mean, rate, images_seen, time.perf_counter() - began))


def _backward(
    model: FCN,
    loss: Loss | FusedUpsampleLoss,
    images: Tensor,
    labels: Tensor,
    parts: int,
    autocast: Callable[[], AbstractContextManager[object]],
) -> Tensor:
    """Add the gradient of a batch to what the parameters have, part by part; returns its loss, detached."""
    values = []
    for some_images, some_labels in zip(images.chunk(parts), labels.chunk(parts), strict=True):
        value = _loss(model, loss, some_images, some_labels, autocast)
        if parts > 1:
            value = value * loss.share(some_labels, labels)
        value.backward()
        values.append(value.detach())
    return torch.stack(values).sum() if parts > 1 else values[0]


def _loss(
    model: FCN,
    loss: Loss | FusedUpsampleLoss,
    images: Tensor,
    labels: Tensor,
    autocast: Callable[[], AbstractContextManager[object]],
) -> Tensor:
    if isinstance(loss, FusedUpsampleLoss):
        with autocast():
            coarse = model.coarse_scores(images)
        return loss(coarse, labels)
    with autocast():
        scores, auxiliary = model.training_scores(images)
    return loss(scores, labels, auxiliary)
