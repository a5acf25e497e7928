"""Training of one model on several devices by PyTorch's DistributedDataParallel.

Each process of a group has one device, a copy of the model and its share of every batch. DistributedDataParallel
averages the gradients, so that all processes take the same step.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from fcnlab.errors import ModelError

TIMEOUT = timedelta(days=7)
"""Timeout of collective operations, long enough for rank 0 to evaluate; the launcher detects crashed processes."""

LOOPBACK = "lo0" if sys.platform == "darwin" else "lo"
"""Network interface that only this machine can connect to."""


@dataclass(frozen=True)
class ProcessGroup:
    """The processes that train one model, from the view of one of them.

    Attributes:
        rank: index of this process.
        size: number of processes.
    """

    rank: int = 0
    size: int = 1

    @property
    def is_main(self) -> bool:
        """True for the process that evaluates and writes files."""
        return self.rank == 0

    @property
    def batch_slice(self) -> slice:
        """The images of a batch that this process trains on.

        Images are dealt out in turn, so that each process has its share of every micro-batch.
        """
        return slice(self.rank, None, self.size)

    def sum(self, value: Tensor) -> Tensor:
        """Sum a tensor over the processes.

        Args:
            value: a tensor of any shape, the same in all processes.

        Returns:
            The sum, the same in all processes: a new tensor if there are several.
        """
        if self.size == 1:
            return value
        total = value.clone()
        torch.distributed.all_reduce(total)
        return total

    def broadcast(self, decision: bool) -> bool:
        """Return the decision of rank 0 in all processes, which wait for it.

        Args:
            decision: the decision; its value matters only in rank 0.
        """
        if self.size == 1:
            return decision
        value = torch.tensor(decision)  # on the CPU, so that no device is kept busy while it waits
        torch.distributed.broadcast(value, src=0)
        return bool(value)

    def wrap_model(self, module: nn.Module) -> nn.Module:
        """Wrap a module so that its gradients are averaged over the processes.

        Args:
            module: computes the loss; returned unchanged if there is one process.
        """
        if self.size == 1:
            return module
        # Static: a parameter without a gradient in the first step, as of auxiliary scores of weight 0, never has one.
        return nn.parallel.DistributedDataParallel(module, static_graph=True)


SINGLE_PROCESS = ProcessGroup()
"""The group of a process that trains a model by itself."""


def join_process_group(rank: int, size: int, init_file: Path) -> ProcessGroup:
    """Form a group of processes, each with the GPU of its rank if there are GPUs.

    Args:
        rank: index of this process.
        size: number of processes.
        init_file: file by which the processes find each other; it must not exist before.

    Returns:
        The group from the view of this process.
    """
    if size == 1:
        return SINGLE_PROCESS
    gpus = torch.cuda.is_available()
    if gpus:
        torch.cuda.set_device(rank)
    for library in ("GLOO", "NCCL"):  # the processes are on one machine: they need not listen on its networks
        os.environ.setdefault(f"{library}_SOCKET_IFNAME", LOOPBACK)
    torch.distributed.init_process_group(
        "cpu:gloo,cuda:nccl" if gpus else "gloo",
        store=torch.distributed.FileStore(str(init_file), size),  # type: ignore[attr-defined]
        rank=rank,
        world_size=size,
        timeout=TIMEOUT,
    )
    return ProcessGroup(rank, size)


def synchronize_batch_norm(model: nn.Module, group: ProcessGroup, device: torch.device) -> None:
    """Replace every batch norm that uses batch statistics by SyncBatchNorm, in place, if there are several processes.

    Args:
        model: the network.
        group: the processes that train it.
        device: device of the network.

    Raises:
        ModelError: there are such batch norms and no GPU, which SyncBatchNorm requires.
    """
    if group.size == 1:
        return
    from timm.layers import convert_sync_batchnorm  # also converts timm's batch norms with an activation

    if device.type != "cuda":
        problem = find_unsynchronized_norms(model, group.size)
        if problem is not None:
            raise ModelError(problem)
    for path in _find_training_norms(model):
        parent, _, name = path.rpartition(".")
        setattr(model.get_submodule(parent), name, convert_sync_batchnorm(model.get_submodule(path)))


def find_unsynchronized_norms(model: nn.Module, processes: int) -> str | None:
    """Return the reason for which several processes on the CPU cannot train a network, with the remedy.

    Args:
        model: the network, after its layers are frozen; it is set to training mode.
        processes: number of processes that train it.

    Returns:
        One line; None if no batch norm uses the statistics of the batch.
    """
    norms = _find_training_norms(model)
    if not norms:
        return None
    in_head = any(not path.startswith("backbone.") for path in norms)
    remedy = "" if in_head else "set recipe.batch_norm: eval or frozen, or "
    return (
        f"{len(norms)} batch norm layers, such as '{norms[-1]}', would use the statistics of a part of the batch "
        f"on each of {processes} CPU processes, because SyncBatchNorm needs GPUs; {remedy}leave out "
        "--devices-per-trial"
    )


def _find_training_norms(model: nn.Module) -> list[str]:
    """Return the paths of the batch norms that use batch statistics while the model trains."""
    model.train()
    return [path for path, module in model.named_modules() if isinstance(module, _BatchNorm) and module.training]
