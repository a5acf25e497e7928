"""The training loop, to be read from top to bottom."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel

from fcnlab.data.batches import TrainingBatches
from fcnlab.models import FCN
from fcnlab.training.distributed import ALONE, Group
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
    group: Group = ALONE,
) -> None:
    """Train from epoch `start` up to `epochs`, calling `after_epoch` at the end of each.

    A batch goes through in `accumulate` equal parts, whose gradients add up to that of the whole. The gradient's norm
    is bounded by `clip_norm`. The loss is summed on the device and read once an epoch, so that no step waits for the
    host. Each process of a `group` goes through its share of a batch; gradient and loss are those of all of it.

    Raises:
        Diverged: the loss of an epoch is infinite or not a number.
    """
    objective = group.parallel(_Objective(model, loss, autocast))
    learned = [parameter for some in optimizer.param_groups for parameter in some["params"]]
    for epoch in range(start, epochs):
        began = time.perf_counter()
        model.train()
        total, images_seen = torch.zeros((), dtype=torch.float64), 0
        for step, (images, labels) in enumerate(batches.epoch(epoch), start=epoch * batches.steps):
            set_rates(optimizer, factor(step))
            optimizer.zero_grad()
            value = _backward(objective, loss, images, labels, accumulate, group)
            if clip_norm is not None:
                clip_grad_norm_(learned, clip_norm)
            optimizer.step()
            if average is not None:
                average.update_parameters(model)
            total = total.to(value.device) + value
            images_seen += group.size * len(images)
        total = group.sum(total)
        mean = float(total) / batches.steps
        if not torch.isfinite(total):
            raise Diverged(f"the loss of epoch {epoch + 1} is {mean}; a smaller learning rate may help")
        rate = optimizer.defaults["lr"] * factor((epoch + 1) * batches.steps - 1)
        after_epoch(Epoch(epoch + 1, mean, rate, images_seen, time.perf_counter() - began))


class _Objective(nn.Module):
    """What is minimised: images [B, 3, H, W] and labels [B, H, W] -> the loss, a scalar."""

    def __init__(
        self, model: FCN, loss: Loss | FusedUpsampleLoss, autocast: Callable[[], AbstractContextManager[object]]
    ) -> None:
        super().__init__()
        self.model, self.loss, self.autocast = model, loss, autocast

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        if isinstance(self.loss, FusedUpsampleLoss):
            with self.autocast():
                coarse = self.model.coarse_scores(images)
            return self.loss(coarse, labels)
        with self.autocast():
            scores, auxiliary = self.model.training_scores(images)
        return self.loss(scores, labels, auxiliary)


def _backward(
    objective: nn.Module, loss: Loss | FusedUpsampleLoss, images: Tensor, labels: Tensor, parts: int, group: Group
) -> Tensor:
    """Add the gradient of a batch to what the parameters have, part by part; returns its loss, detached.

    Of a group, each process has the same gradient in the end, and its own share of the loss.
    """
    values = []
    for some_images, some_labels in zip(images.chunk(parts), labels.chunk(parts), strict=True):
        value = objective(some_images, some_labels)
        if parts > 1 or group.size > 1:
            value = value * loss.share(some_labels, labels, group)
        # The group takes the mean of its gradients, and the sum is wanted. What earlier parts have left is the same in
        # all of its processes, so that taking the mean of it once more does nothing to it.
        (group.size * value).backward()
        values.append(value.detach())
    return torch.stack(values).sum() if parts > 1 else values[0]
