"""The training loop, to be read from top to bottom."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cache

import torch
from torch import nn
from torch.amp import GradScaler
from torch.nn.utils import clip_grad_norm_
from torch.optim import Optimizer

from fcnlab.data.batches import TrainingBatches
from fcnlab.models import FCN
from fcnlab.training.distributed import SINGLE_PROCESS, ProcessGroup
from fcnlab.training.fused_loss import FusedUpsampleLoss
from fcnlab.training.losses import Loss
from fcnlab.training.optim import MovingAverage, Schedule, set_learning_rates
from fcnlab.training.step import Backward, Objective, create_backward


class DivergenceError(RuntimeError):
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
    start_epoch: int,
    loss: Loss | FusedUpsampleLoss,
    optimizer: Optimizer,
    schedule: Schedule,
    autocast: Callable[[], AbstractContextManager[object]],
    on_epoch_end: Callable[[Epoch], None],
    grad_accum_steps: int = 1,
    grad_clip_norm: float | None = None,
    average: MovingAverage | None = None,
    group: ProcessGroup = SINGLE_PROCESS,
    scaler: GradScaler | None = None,
    capturable: bool = False,
    compiled: bool = False,
) -> None:
    """Train from epoch `start_epoch` up to `epochs`, calling `on_epoch_end` at the end of each.

    The loss is summed on the device and read once an epoch, so that no step waits for the host. Each process of a
    `group` goes through its share of a batch; gradient and loss are those of all of it.

    Args:
        model: the network, on the device that trains.
        batches: of images float32 [B, 3, H, W] and labels uint8 [B, H, W], on the same device.
        epochs: how many there are in all.
        start_epoch: how many of them are done.
        loss: of the scores, or of the coarse scores before the last upsampling.
        optimizer: over the parameters that learn.
        schedule: of every learning rate, by step.
        autocast: the context of the forward pass.
        on_epoch_end: called at the end of each epoch; an exception of it ends the training.
        grad_accum_steps: how many micro-batches a batch is cut into; their gradients add up to that of the whole.
        grad_clip_norm: bound of the gradient's norm.
        average: a moving average that takes in the weights after each step.
        group: the processes that train the model together.
        scaler: of the loss, for fp16.
        capturable: whether a step can be captured as a CUDA graph: no operator in it waits for the host.
        compiled: whether `torch.compile` compiles the network's forward and backward pass.

    Raises:
        DivergenceError: the loss of an epoch is infinite or not a number.
    """
    device = next(model.parameters()).device
    learned = [parameter for some in optimizer.param_groups for parameter in some["params"]]
    objective = group.wrap_model(Objective(model, loss, autocast, compiled=compiled))
    eager = Backward(objective, loss, learned, micro_batches=grad_accum_steps, group=group, scaler=scaler)
    backward = create_backward(eager, device, capturable=capturable and scaler is None and group.size == 1)
    for epoch in range(start_epoch, epochs):
        began = time.perf_counter()
        model.train()
        with _own_stream(device):
            total, images_seen = torch.zeros((), dtype=torch.float64, device=device), 0
            for step, (images, labels) in enumerate(batches.epoch(epoch), start=epoch * batches.steps):
                set_learning_rates(optimizer, schedule(step))
                value = backward(images, labels)
                _update(optimizer, learned, grad_clip_norm, scaler)
                if average is not None:
                    average.update_parameters(model)
                total = total + value
                images_seen += group.size * len(images)
            total = group.sum(total)
            mean = float(total) / batches.steps
        if not math.isfinite(mean):
            raise DivergenceError(f"the loss of epoch {epoch + 1} is {mean}; a smaller learning rate may help")
        rate = optimizer.defaults["lr"] * schedule((epoch + 1) * batches.steps - 1)
        on_epoch_end(Epoch(epoch + 1, mean, rate, images_seen, time.perf_counter() - began))


def _update(
    optimizer: Optimizer, learned: list[nn.Parameter], grad_clip_norm: float | None, scaler: GradScaler | None
) -> None:
    """Take a step of the optimizer with the gradients that are there."""
    if scaler is not None and grad_clip_norm is not None:
        scaler.unscale_(optimizer)
    if grad_clip_norm is not None:
        clip_grad_norm_(learned, grad_clip_norm)
    if scaler is None:
        optimizer.step()
    else:
        scaler.step(optimizer)
        scaler.update()


@contextmanager
def _own_stream(device: torch.device) -> Iterator[None]:
    """Run on a CUDA stream of its own, since the default stream cannot be captured; on the CPU this does nothing."""
    if device.type != "cuda":
        yield
        return
    stream = _training_stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):
        yield
    torch.cuda.current_stream(device).wait_stream(stream)


@cache
def _training_stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)
