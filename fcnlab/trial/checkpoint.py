"""Checkpoints of a trial: the state of training, and writing it in a thread."""

from __future__ import annotations

import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fcnlab.training.fit import Training
from fcnlab.trial.storage.checkpoint_file import write_checkpoint


def capture_state(model: nn.Module, training: Training, scaler: torch.amp.GradScaler | None) -> dict[str, Any]:
    """Return the state from which `restore_state` continues training bit for bit.

    Args:
        model: the model.
        training: its optimizer and its weight average.
        scaler: gradient scaler, if training uses one.

    Returns:
        Tensors and plain values by name.
    """
    average, device = training.average, next(model.parameters()).device
    return {
        "model": model.state_dict(),
        "optimizer": training.optimizer.state_dict(),
        "average": average.state_dict() if average is not None else None,
        "scaler": scaler.state_dict() if scaler is not None else None,
        "random": torch.random.get_rng_state(),
        "cuda_random": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
    }


def restore_state(
    state: Mapping[str, Any],
    model: nn.Module,
    training: Training,
    scaler: torch.amp.GradScaler | None,
) -> None:
    """Restore a state that `capture_state` returned.

    Args:
        state: the state.
        model: the model.
        training: its optimizer and its weight average.
        scaler: gradient scaler, if training uses one.
    """
    model.load_state_dict(state["model"])
    training.optimizer.load_state_dict(state["optimizer"])
    if training.average is not None:
        training.average.load_state_dict(state["average"])
    # The checkpoint may come from another kind of device.
    if scaler is not None and state["scaler"] is not None:
        scaler.load_state_dict(state["scaler"])
    torch.random.set_rng_state(state["random"])
    device = next(model.parameters()).device
    if device.type == "cuda" and state["cuda_random"] is not None:
        torch.cuda.set_rng_state(state["cuda_random"], device)


class CheckpointWriter:
    """Writes the state of a trial at intervals, in a thread. Each write keeps the previous checkpoint.

    As a context manager it waits for the last write at its end.
    """

    def __init__(self, file: Path, previous: Path, every: float) -> None:
        """Prepare to write checkpoints to a file.

        Args:
            file: path of the checkpoint.
            previous: path to which each write moves the checkpoint before.
            every: seconds between two checkpoints; 0 writes one after each epoch.
        """
        self._file, self._previous, self._every = file, previous, every
        self._last = time.monotonic()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._writing: Future[None] | None = None

    @property
    def due(self) -> bool:
        """True if the interval has passed since the last checkpoint or the start."""
        return time.monotonic() - self._last >= self._every

    def save(self, state: Mapping[str, Any]) -> None:
        """Copy a state to the CPU and write it in a thread, after the previous write.

        Args:
            state: tensors and plain values, in dicts, lists and tuples.

        Raises:
            OSError: the previous checkpoint could not be written.
        """
        self.wait()
        copied = _copy_to_cpu(state)
        self._last = time.monotonic()
        self._writing = self._thread.submit(write_checkpoint, self._file, self._previous, copied)

    def wait(self) -> None:
        """Wait until the last checkpoint is on the disk.

        Raises:
            OSError: it could not be written.
        """
        if self._writing is not None:
            writing, self._writing = self._writing, None
            writing.result()

    def __enter__(self) -> CheckpointWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown(wait=True)


def _copy_to_cpu(value: Any) -> Any:
    """Copy all tensors in nested containers to the CPU, because training changes the originals."""
    if isinstance(value, Tensor):
        return value.detach().cpu() if value.device.type != "cpu" else value.detach().clone()
    if isinstance(value, Mapping):
        return {key: _copy_to_cpu(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_copy_to_cpu(inner) for inner in value)
    return value
