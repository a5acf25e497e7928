"""One model on several devices: what its processes have to agree on, by PyTorch's own DistributedDataParallel.

Each process of a group has a device, a copy of the model and its share of every batch. DistributedDataParallel takes
the mean of their gradients, so that all take the same step.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from fcnlab.errors import ModelError

TIMEOUT = timedelta(days=7)
"""How long a process waits for the others: as long as rank 0 may score. Who dies is noticed by other means."""


@dataclass(frozen=True)
class ProcessGroup:
    """The processes that train one model, as one of them sees it: its own rank among `size`; rank 0 leads."""

    rank: int = 0
    size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this is the process that scores and writes."""
        return self.rank == 0

    @property
    def batch_slice(self) -> slice:
        """The places of a batch whose images this process takes.

        They take turns, so that where a batch is cut into parts, each has its share of every part.
        """
        return slice(self.rank, None, self.size)

    def sum(self, value: Tensor) -> Tensor:
        """The sum of what all have; a new tensor, the same in all of them."""
        if self.size == 1:
            return value
        total = value.clone()
        torch.distributed.all_reduce(total)
        return total

    def broadcast(self, decision: bool) -> bool:
        """What rank 0 has decided; the others wait until it has. By way of the CPU: no device is kept busy with it."""
        if self.size == 1:
            return decision
        said = torch.tensor(decision)
        torch.distributed.broadcast(said, src=0)
        return bool(said)

    def wrap_model(self, module: nn.Module) -> nn.Module:
        """A module that does the same, and whose gradients are the mean over the group."""
        if self.size == 1:
            return module
        # Static: what has no gradient in the first step, such as auxiliary scores of weight 0, never has one.
        return nn.parallel.DistributedDataParallel(module, static_graph=True)


SINGLE_PROCESS = ProcessGroup()
"""A process that trains a model by itself."""


def join_process_group(rank: int, size: int, meeting: Path) -> ProcessGroup:
    """Form a group of `size` processes, each with the GPU of its rank where there are GPUs.

    `meeting` is the file by which they find each other; nothing may be there before.
    """
    if size == 1:
        return SINGLE_PROCESS
    gpus = torch.cuda.is_available()
    if gpus:
        torch.cuda.set_device(rank)
    torch.distributed.init_process_group(
        "cpu:gloo,cuda:nccl" if gpus else "gloo",
        store=torch.distributed.FileStore(str(meeting), size),  # type: ignore[attr-defined]
        rank=rank,
        world_size=size,
        timeout=TIMEOUT,
    )
    return ProcessGroup(rank, size)


def synchronize_batch_norm(model: nn.Module, group: ProcessGroup, device: torch.device) -> None:
    """Let every batch norm that trains see the whole batch: on GPUs by SyncBatchNorm, in the place of each.

    Raises:
        ModelError: there are such batch norms, and no GPU.
    """
    norms = _training_norms(model) if group.size > 1 else []
    if norms and device.type != "cuda":
        in_head = any(not path.startswith("backbone.") for path in norms)
        remedy = "" if in_head else "set recipe.batch_norm: eval or frozen, or "
        raise ModelError(
            f"on each of {group.size} CPU processes batch norm would see a part of the batch, in {len(norms)} places "
            f"such as '{norms[-1]}', for SyncBatchNorm needs GPUs; {remedy}leave out --devices-per-trial"
        )
    for path in norms:
        _synchronise(model, path)


def _training_norms(model: nn.Module) -> list[str]:
    """The paths of the batch norms that use the statistics of a batch while the model trains."""
    model.train()
    return [path for path, module in model.named_modules() if isinstance(module, _BatchNorm) and module.training]


def _synchronise(model: nn.Module, path: str) -> None:
    """Put a SyncBatchNorm with the same weights in the place of a batch norm; those of timm hold their activation."""
    from timm.layers import convert_sync_batchnorm

    parent, _, name = path.rpartition(".")
    setattr(model.get_submodule(parent), name, convert_sync_batchnorm(model.get_submodule(path)))
