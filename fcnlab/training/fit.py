"""The training loop."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache
from typing import cast

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
from fcnlab.training.step import Backward, GraphedBackward, Objective, create_backward


class DivergenceError(RuntimeError):
    """The loss or a weight is infinite or not a number."""


@dataclass(frozen=True)
class Training:
    """The objects with which a recipe trains a model.

    Attributes:
        batches: images float32 [B, C, H, W] and labels uint8 [B, H, W], on the device that trains.
        loss: loss of the scores, or of the coarse scores before the last upsampling.
        optimizer: optimizer of the trainable parameters.
        schedule: maps a step to the factor on every learning rate.
        grad_clip_norm: largest norm of the gradient; None does not clip it.
        average: moving average of the weights, updated after each step; None if there is none.
        capturable: a step can be captured as a CUDA graph: none of its operators waits for the host.
        from_cache: the batches are read from a cache, which does not change when the files of the dataset do.
    """

    batches: TrainingBatches
    loss: Loss | FusedUpsampleLoss
    optimizer: Optimizer
    schedule: Schedule
    grad_clip_norm: float | None = None
    average: MovingAverage | None = None
    capturable: bool = False
    from_cache: bool = False

    @property
    def parameters(self) -> list[nn.Parameter]:
        """The parameters that the optimizer updates."""
        return [parameter for param_group in self.optimizer.param_groups for parameter in param_group["params"]]

    @property
    def averaged(self) -> FCN | None:
        """The model with the averaged weights, or None."""
        return cast(FCN, self.average.module) if self.average is not None else None


@dataclass(frozen=True)
class Execution:
    """The computation of a batch: its precision, its micro-batches, and the processes that share it.

    Attributes:
        autocast: creates the context of the forward pass.
        scaler: loss scaler for fp16.
        grad_accum_steps: number of micro-batches in a batch, whose gradients are accumulated.
        group: the processes that train the model.
        compiled: compile the network with `torch.compile`.
    """

    autocast: Callable[[], AbstractContextManager[object]] = nullcontext
    scaler: GradScaler | None = None
    grad_accum_steps: int = 1
    group: ProcessGroup = SINGLE_PROCESS
    compiled: bool = False


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
    training: Training,
    execution: Execution = Execution(),
    *,
    epochs: int,
    start_epoch: int = 0,
    on_epoch_end: Callable[[Epoch], object] = lambda _: None,
    on_step: Callable[[], object] = lambda: None,
    log_every: int | None = None,
) -> None:
    """Train a network from epoch `start_epoch` to `epochs`.

    Each process of a group computes its share of a batch; gradient and loss are those of the whole batch.

    Args:
        model: the network, on the device that trains.
        training: batches, loss and optimizer.
        execution: precision, micro-batches and processes.
        epochs: total number of epochs.
        start_epoch: number of epochs that are finished already.
        on_epoch_end: called after each epoch; an exception that it raises ends the training.
        on_step: called after each step; on CUDA its computation may still be pending.
        log_every: number of steps between two losses that an epoch records; None records none.

    Raises:
        DivergenceError: the loss of an epoch is infinite or not a number.
    """
    device = next(model.parameters()).device
    batches, schedule, group = training.batches, training.schedule, execution.group
    backward = _create_backward(model, training, execution)
    for epoch in range(start_epoch, epochs):
        start_time = time.perf_counter()
        model.train()
        images_seen = 0
        with use_training_stream(device):
            losses = _EpochLosses(device, log_every)
            for step, (images, labels) in enumerate(batches.epoch(epoch), start=epoch * batches.steps):
                set_learning_rates(training.optimizer, schedule(step))
                loss = backward(images, labels)
                _update_weights(model, training, execution.scaler)
                losses.add(step + 1, loss)
                images_seen += group.size * len(images)
                on_step()
            mean_loss, step_losses = losses.read(batches.steps, group)
        if not math.isfinite(mean_loss):
            raise DivergenceError(f"the loss of epoch {epoch + 1} is {mean_loss}; a smaller learning rate may help")
        lr = training.optimizer.defaults["lr"] * schedule((epoch + 1) * batches.steps - 1)
        on_epoch_end(Epoch(epoch + 1, mean_loss, lr, images_seen, time.perf_counter() - start_time, step_losses))


def _create_backward(model: FCN, training: Training, execution: Execution) -> Backward | GraphedBackward:
    """Create the function that computes the loss and the gradient of a batch."""
    group, scaler = execution.group, execution.scaler
    objective = group.wrap_model(Objective(model, training.loss, execution.autocast, compiled=execution.compiled))
    backward = Backward(
        objective,
        training.loss,
        training.parameters,
        micro_batches=execution.grad_accum_steps,
        group=group,
        scaler=scaler,
    )
    # Communication and the growth of the loss scale are decided on the host, so a graph cannot contain them.
    capturable = training.capturable and scaler is None and group.size == 1
    return create_backward(backward, next(model.parameters()).device, capturable=capturable)


def _update_weights(model: FCN, training: Training, scaler: GradScaler | None) -> None:
    """Clip the gradient, take a step of the optimizer and update the moving average."""
    if training.grad_clip_norm is not None:
        if scaler is not None:
            scaler.unscale_(training.optimizer)
        clip_grad_norm_(training.parameters, training.grad_clip_norm)
    if scaler is None:
        training.optimizer.step()
    else:
        scaler.step(training.optimizer)
        scaler.update()
    if training.average is not None:
        training.average.update_parameters(model)


class _EpochLosses:
    """Losses of the steps of an epoch. They stay on the device until it ends, so that no step waits for the host."""

    def __init__(self, device: torch.device, log_every: int | None) -> None:
        self._sum = torch.zeros((), dtype=torch.float64, device=device)
        self._log_every = log_every
        self._logged: dict[int, Tensor] = {}

    def add(self, step: int, loss: Tensor) -> None:
        """Add the loss of a step; steps are numbered from 1 over all epochs."""
        self._sum = self._sum + loss
        if self._log_every is not None and step % self._log_every == 0:
            self._logged[step] = loss.clone()  # a replayed graph overwrites it

    def read(self, steps: int, group: ProcessGroup) -> tuple[float, tuple[tuple[int, float], ...]]:
        """Return the mean loss over all processes, and the logged steps with their losses."""
        mean = float(group.sum(self._sum)) / steps
        if not self._logged:
            return mean, ()
        values = group.sum(torch.stack(list(self._logged.values())).double()).tolist()
        return mean, tuple(zip(self._logged, values, strict=True))


@torch.no_grad()
def check_weights_finite(model: nn.Module, epoch: int) -> None:
    """Check that training has left finite weights: the loss of a step does not show what its gradient does to them.

    Args:
        model: the trained model.
        epoch: number of the epoch of its weights, for the message.

    Raises:
        DivergenceError: a parameter is infinite or not a number, or a buffer contains a value that is not a number.
    """
    bad = [name for name, parameter in model.named_parameters() if not parameter.isfinite().all()]
    # Infinity can be meant in a buffer, for example in the mask of an attention layer.
    bad += [name for name, buffer in model.named_buffers() if buffer.isnan().any()]
    if bad:
        raise DivergenceError(
            f"{len(bad)} weights and statistics of epoch {epoch} are not finite, such as '{bad[0]}'; a smaller "
            "learning rate may help"
        )


@contextmanager
def use_training_stream(device: torch.device) -> Iterator[None]:
    """Run on a separate CUDA stream, because the default stream cannot be captured; on the CPU this has no effect.

    Args:
        device: device that trains.
    """
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
