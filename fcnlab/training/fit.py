"""The training loop."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor, nn
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
    """The loss is infinite or not a number."""


@dataclass(frozen=True)
class Epoch:
    """Results of one epoch of training.

    Attributes:
        epoch: number of the epoch, from 1.
        loss: mean loss of its steps.
        lr: learning rate of its last step.
        images: number of images.
        seconds: wall-clock time.
        step_losses: number of a step, from 1 over all epochs, and its loss; see `fit`.
    """

    epoch: int
    loss: float
    lr: float
    images: int
    seconds: float
    step_losses: tuple[tuple[int, float], ...] = ()


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
    log_every: int | None = None,
    on_step: Callable[[], object] = lambda: None,
) -> None:
    """Train a network from epoch `start_epoch` to `epochs`.

    The loss is summed on the device and read once per epoch, so that no step waits for the host. Each process of a
    group computes its share of a batch; gradient and loss are those of the whole batch.

    Args:
        model: the network, on the device that trains.
        batches: images float32 [B, 3, H, W] and labels uint8 [B, H, W], on the same device.
        epochs: total number of epochs.
        start_epoch: number of epochs that are finished already.
        loss: loss of the scores, or of the coarse scores before the last upsampling.
        optimizer: optimizer of the trainable parameters.
        schedule: maps a step to the factor on every learning rate.
        autocast: creates the context of the forward pass.
        on_epoch_end: called after each epoch; an exception that it raises ends the training.
        grad_accum_steps: number of micro-batches in a batch, whose gradients are accumulated.
        grad_clip_norm: largest norm of the gradient.
        average: moving average that is updated after each step.
        group: the processes that train the model.
        scaler: loss scaler for fp16.
        capturable: a step can be captured as a CUDA graph: none of its operators waits for the host.
        compiled: compile the network with `torch.compile`.
        log_every: number of steps between two losses that an epoch records; None records none.
        on_step: called after each step; on CUDA its computation may still be pending.

    Raises:
        DivergenceError: the loss of an epoch is infinite or not a number.
    """
    device = next(model.parameters()).device
    parameters = [parameter for param_group in optimizer.param_groups for parameter in param_group["params"]]
    objective = group.wrap_model(Objective(model, loss, autocast, compiled=compiled))
    eager = Backward(objective, loss, parameters, micro_batches=grad_accum_steps, group=group, scaler=scaler)
    backward = create_backward(eager, device, capturable=capturable and scaler is None and group.size == 1)
    for epoch in range(start_epoch, epochs):
        began = time.perf_counter()
        model.train()
        with _use_training_stream(device):
            total, images_seen = torch.zeros((), dtype=torch.float64, device=device), 0
            logged: dict[int, Tensor] = {}
            for step, (images, labels) in enumerate(batches.epoch(epoch), start=epoch * batches.steps):
                set_learning_rates(optimizer, schedule(step))
                batch_loss = backward(images, labels)
                _step(optimizer, parameters, grad_clip_norm, scaler)
                if average is not None:
                    average.update_parameters(model)
                total = total + batch_loss
                images_seen += group.size * len(images)
                if log_every is not None and (step + 1) % log_every == 0:
                    logged[step + 1] = batch_loss.clone()  # a replayed graph overwrites it
                on_step()
            mean_loss = float(group.sum(total)) / batches.steps
            step_losses = _read_losses(logged, group)
        if not math.isfinite(mean_loss):
            raise DivergenceError(f"the loss of epoch {epoch + 1} is {mean_loss}; a smaller learning rate may help")
        lr = optimizer.defaults["lr"] * schedule((epoch + 1) * batches.steps - 1)
        on_epoch_end(Epoch(epoch + 1, mean_loss, lr, images_seen, time.perf_counter() - began, step_losses))


def _read_losses(losses: dict[int, Tensor], group: ProcessGroup) -> tuple[tuple[int, float], ...]:
    """Read the losses of some steps from the device, all at once."""
    if not losses:
        return ()
    values = group.sum(torch.stack(list(losses.values())).double()).tolist()
    return tuple(zip(losses, values, strict=True))


def _step(
    optimizer: Optimizer, parameters: list[nn.Parameter], grad_clip_norm: float | None, scaler: GradScaler | None
) -> None:
    """Clip the gradient and update the parameters."""
    if scaler is not None and grad_clip_norm is not None:
        scaler.unscale_(optimizer)
    if grad_clip_norm is not None:
        clip_grad_norm_(parameters, grad_clip_norm)
    if scaler is None:
        optimizer.step()
    else:
        scaler.step(optimizer)
        scaler.update()


@contextmanager
def _use_training_stream(device: torch.device) -> Iterator[None]:
    """Run on a separate CUDA stream, because the default stream cannot be captured; on the CPU this has no effect."""
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
