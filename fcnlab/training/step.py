"""Forward and backward pass of one batch: operator by operator, or as one CUDA graph that is replayed."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from fcnlab.models import FCN
from fcnlab.training.distributed import ProcessGroup
from fcnlab.training.fused_loss import FusedUpsampleLoss
from fcnlab.training.losses import Loss

CUDA_GRAPHS_VARIABLE = "FCNLAB_CUDA_GRAPHS"
"""Environment variable: 0 launches every kernel of a training step by itself instead of replaying a CUDA graph."""

WARMUP_STEPS = 3
"""Steps that run operator by operator before the graph is captured: libraries initialise themselves in them."""


class Objective(nn.Module):
    """The function that training minimizes: images [B, 3, H, W] and labels [B, H, W] to the loss, a scalar."""

    def __init__(
        self,
        model: FCN,
        loss: Loss | FusedUpsampleLoss,
        autocast: Callable[[], AbstractContextManager[object]],
        *,
        compiled: bool = False,
    ) -> None:
        """
        Args:
            model: the network.
            loss: of its scores, or of the coarse scores before the last upsampling.
            autocast: the context of the network's forward pass.
            compiled: whether `torch.compile` compiles the network for this function; elsewhere it stays as it is.
        """
        super().__init__()
        self.model, self.loss, self.autocast = model, loss, autocast
        fused = isinstance(loss, FusedUpsampleLoss)
        self.scores: Callable[[Tensor], Any] = model.coarse_scores if fused else model.training_scores
        if compiled:
            torch.compiler.reset()  # networks compiled for earlier trials of this process
            self.scores = torch.compile(self.scores, dynamic=False)

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        if isinstance(self.loss, FusedUpsampleLoss):
            with self.autocast():
                coarse = self.scores(images)
            return self.loss(coarse, labels)
        with self.autocast():
            scores, auxiliary = self.scores(images)
        return self.loss(scores, labels, auxiliary)


class Backward:
    """Compute the loss of a batch and leave its gradient in the parameters' `grad`.

    The batch goes through in `micro_batches` equal micro-batches, whose gradients add up to that of the whole.
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
        """
        Args:
            objective: an `Objective`, or one that DistributedDataParallel wraps.
            loss: the objective's loss, which says how the losses of micro-batches are weighted.
            parameters: those that learn.
            micro_batches: how many micro-batches a batch is cut into.
            group: the processes that train the model together.
            scaler: multiplies the loss before the backward pass, for fp16.
        """
        self._objective, self._loss, self._parameters = objective, loss, parameters
        self._micro_batches, self._group, self._scaler = micro_batches, group, scaler

    def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return the loss of a batch, detached. In a group: this process's share of it."""
        self.clear()
        return self.accumulate(images, labels)

    def clear(self) -> None:
        """Drop the gradients of the previous batch."""
        for parameter in self._parameters:
            parameter.grad = None

    def accumulate(self, images: Tensor, labels: Tensor) -> Tensor:
        """Add a batch's gradient to what the parameters' `grad` hold; return its loss, detached."""
        values = []
        for some_images, some_labels in zip(
            images.chunk(self._micro_batches), labels.chunk(self._micro_batches), strict=True
        ):
            value = self._objective(some_images, some_labels)
            if self._micro_batches > 1 or self._group.size > 1:
                value = value * self._loss.weight_of_part(some_labels, labels, self._group)
            # The group takes the mean of its gradients, and the sum is wanted. The gradients of earlier micro-batches
            # are the same in all of its processes, so that taking their mean once more leaves them as they are.
            scaled = self._group.size * value
            (scaled if self._scaler is None else self._scaler.scale(scaled)).backward()
            values.append(value.detach())
        return torch.stack(values).sum() if self._micro_batches > 1 else values[0]


class GraphedBackward:
    """A `Backward` that is captured as a CUDA graph after a few steps and replayed from then on.

    A step of a small network launches several hundred kernels of a few microseconds each, which takes the host longer
    than the device. A replayed graph launches all of them at once. The kernels and their results are the same.
    """

    def __init__(self, backward: Backward) -> None:
        self._backward = backward
        self._steps = 0
        self._graph: torch.cuda.CUDAGraph | None = None
        self._images = self._labels = self._loss = torch.empty(0)

    def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return the loss of a batch; with the graph, in a tensor that the next call writes over."""
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
        """Record forward and backward on copies of a batch; False if something in them cannot be captured."""
        self._images, self._labels = torch.empty_like(images), torch.empty_like(labels)
        self._backward.clear()  # so that the graph allocates gradients of its own, which a replay writes over
        graph = torch.cuda.CUDAGraph()
        try:
            # The capture happens on the stream that the warm-up ran on. Other threads may use CUDA meanwhile.
            with torch.cuda.graph(graph, stream=torch.cuda.current_stream(), capture_error_mode="thread_local"):
                self._loss = self._backward.accumulate(self._images, self._labels)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
            warnings.warn(f"training steps are not replayed as a CUDA graph: {reason}", stacklevel=2)
            return False
        self._graph = graph
        return True


def create_backward(backward: Backward, device: torch.device, *, capturable: bool) -> Backward | GraphedBackward:
    """Return what computes the gradients of a training on this device.

    Args:
        backward: computes them operator by operator.
        device: the device that trains.
        capturable: whether nothing in a step waits for the host or depends on values there.
    """
    if device.type == "cuda" and capturable and os.environ.get(CUDA_GRAPHS_VARIABLE, "1") != "0":
        return GraphedBackward(backward)
    return backward
