"""Forward and backward pass of one batch, operator by operator or as one CUDA graph that is replayed."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from fcnlab.errors import first_line
from fcnlab.models import FCN
from fcnlab.training.distributed import ProcessGroup
from fcnlab.training.fused_loss import FusedUpsampleLoss
from fcnlab.training.losses import Loss

CUDA_GRAPHS_VARIABLE = "FCNLAB_CUDA_GRAPHS"
"""Environment variable: 0 turns CUDA graphs off, so that every kernel of a training step is launched by itself."""

WARMUP_STEPS = 3
"""Steps before the graph is captured; libraries initialize themselves in them."""


class Objective(nn.Module):
    """The function that training minimizes: images [B, C, H, W] and labels [B, H, W] to a scalar loss."""

    def __init__(
        self,
        model: FCN,
        loss: Loss | FusedUpsampleLoss,
        autocast: Callable[[], AbstractContextManager[object]],
        *,
        compiled: bool = False,
    ) -> None:
        """Combine a model with a loss.

        Args:
            model: the network.
            loss: loss of its scores, or of the coarse scores before the last upsampling.
            autocast: creates the context of the forward pass.
            compiled: compile the network with `torch.compile` for this function; elsewhere it runs uncompiled.
        """
        super().__init__()
        self.model, self.loss, self.autocast = model, loss, autocast
        fused = isinstance(loss, FusedUpsampleLoss)
        self.compute_scores: Callable[[Tensor], Any] = model.coarse_scores if fused else model.training_scores
        if compiled:
            torch.compiler.reset()  # drop the networks compiled for earlier trials of this process
            self.compute_scores = torch.compile(self.compute_scores, dynamic=False)

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        if isinstance(self.loss, FusedUpsampleLoss):
            with self.autocast():
                coarse = self.compute_scores(images)
            return self.loss(coarse, labels)
        with self.autocast():
            scores, auxiliary = self.compute_scores(images)
        return self.loss(scores, labels, auxiliary)


class Backward:
    """Compute the loss of a batch and store its gradient in the `grad` of the parameters.

    The batch is divided into equal micro-batches, whose gradients are accumulated to that of the batch.
    """

    def __init__(
        self,
        objective: nn.Module,
        loss: Loss | FusedUpsampleLoss,
        parameters: Sequence[nn.Parameter],
        *,
        micro_batches: int,
        group: ProcessGroup,
        scaler: torch.amp.GradScaler | None,
    ) -> None:
        """Set up the steps of a training.

        Args:
            objective: an `Objective`, possibly wrapped by DistributedDataParallel.
            loss: loss of the objective, which weights the losses of micro-batches.
            parameters: the trainable parameters.
            micro_batches: number of micro-batches in a batch.
            group: the processes that train the model.
            scaler: loss scaler for fp16.
        """
        self._objective, self._loss, self._parameters = objective, loss, parameters
        self._micro_batches, self._group, self._scaler = micro_batches, group, scaler

    def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
        """Compute the gradient of a batch.

        Args:
            images: float32 [B, C, H, W].
            labels: uint8 [B, H, W].

        Returns:
            The loss, detached; in a group, the contribution of this process.
        """
        self.zero_grad()
        return self.accumulate(images, labels)

    def zero_grad(self) -> None:
        """Remove the gradients of the previous batch."""
        for parameter in self._parameters:
            parameter.grad = None

    def accumulate(self, images: Tensor, labels: Tensor) -> Tensor:
        """Add the gradient of a batch to the `grad` of the parameters.

        Args:
            images: float32 [B, C, H, W].
            labels: uint8 [B, H, W].

        Returns:
            The loss, detached; in a group, the contribution of this process.
        """
        losses = []
        n = self._micro_batches
        for micro_images, micro_labels in zip(images.chunk(n), labels.chunk(n), strict=True):
            loss = self._objective(micro_images, micro_labels)
            if n > 1 or self._group.size > 1:
                loss = loss * self._loss.compute_micro_batch_weight(micro_labels, labels, self._group)
            # DistributedDataParallel averages gradients, but the objective is a sum over processes. Gradients of
            # earlier micro-batches are equal in all processes already, so that averaging them again changes nothing.
            scaled = self._group.size * loss
            (scaled if self._scaler is None else self._scaler.scale(scaled)).backward()
            losses.append(loss.detach())
        return torch.stack(losses).sum() if n > 1 else losses[0]


class GraphedBackward:
    """A `Backward` that is captured as a CUDA graph after a few steps and replayed from then on.

    A step of a small network launches several hundred kernels of a few microseconds each, which takes longer on the
    host than on the device. A replayed graph launches all of them at once. The kernels and their results are the same.
    """

    def __init__(self, backward: Backward) -> None:
        """Prepare to capture a `Backward`.

        Args:
            backward: runs operator by operator; on CUDA, without a process group and without a loss scaler.
        """
        self._backward = backward
        self._steps = 0
        self._graph: torch.cuda.CUDAGraph | None = None
        self._images = self._labels = self._loss = torch.empty(0)

    def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
        """Compute the gradient of a batch.

        Args:
            images: float32 [B, C, H, W].
            labels: uint8 [B, H, W].

        Returns:
            The loss, detached; once the graph is captured, in a tensor that the next call overwrites.
        """
        if self._graph is None:
            self._steps += 1
            if self._steps != WARMUP_STEPS + 1 or not self._capture(images, labels):
                return self._backward(images, labels)
        assert self._graph is not None
        self._images.copy_(images)
        self._labels.copy_(labels)
        self._graph.replay()
        return self._loss

    def _capture(self, images: Tensor, labels: Tensor) -> bool:
        """Capture both passes on copies of a batch; return False if an operator cannot be captured."""
        self._images, self._labels = torch.empty_like(images), torch.empty_like(labels)
        self._backward.zero_grad()  # so that the graph allocates its own gradients, which each replay overwrites
        graph = torch.cuda.CUDAGraph()
        try:
            # Capture on the stream of the warm-up. Other threads may use CUDA in the meantime.
            with torch.cuda.graph(graph, stream=torch.cuda.current_stream(), capture_error_mode="thread_local"):
                self._loss = self._backward.accumulate(self._images, self._labels)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            warnings.warn(f"training steps are not replayed as a CUDA graph: {first_line(error)}", stacklevel=2)
            return False
        self._graph = graph
        return True


def create_backward(backward: Backward, device: torch.device, *, capturable: bool) -> Backward | GraphedBackward:
    """Return the fastest way to compute gradients on a device.

    Args:
        backward: runs operator by operator.
        device: device that trains.
        capturable: no operator of a step waits for the host or depends on values there.

    Returns:
        A `GraphedBackward` on CUDA if the step is capturable and graphs are not turned off, else `backward`.
    """
    if device.type == "cuda" and capturable and os.environ.get(CUDA_GRAPHS_VARIABLE, "1") != "0":
        return GraphedBackward(backward)
    return backward
