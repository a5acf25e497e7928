"""Checkpoints of a trial, written beside the training."""

from __future__ import annotations

import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fcnlab.settings import CHECKPOINT_EVERY
from fcnlab.trial.run_folder import write_atomically


class CheckpointWriter:
    """Write the state of a trial at intervals, by a thread; the file holds one whole state or the next, never a part.

    Used as a context: leaving it waits for the last write.
    """

    def __init__(self, file: Path, every: float = CHECKPOINT_EVERY) -> None:
        """
        Args:
            file: the checkpoint's path.
            every: seconds between two checkpoints; 0 writes one after each epoch.
        """
        self._file, self._every = file, every
        self._last = time.monotonic()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._writing: Future[None] | None = None

    @property
    def due(self) -> bool:
        """Whether the interval has passed since the last checkpoint, or since the start."""
        return time.monotonic() - self._last >= self._every

    def save(self, state: Mapping[str, Any]) -> None:
        """Copy a state to the CPU and write it by a thread, once the previous write has ended.

        Args:
            state: tensors and plain values, in dicts, lists and tuples.

        Raises:
            OSError: the previous checkpoint could not be written.
        """
        self.wait()
        copied = _copied(state)
        self._last = time.monotonic()
        self._writing = self._thread.submit(self._write, copied)

    def wait(self) -> None:
        """Wait until the last checkpoint is on the disk.

        Raises:
            OSError: it could not be written.
        """
        if self._writing is not None:
            writing, self._writing = self._writing, None
            writing.result()

    def _write(self, state: Any) -> None:
        write_atomically(self._file, lambda file: torch.save(state, file))

    def __enter__(self) -> CheckpointWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown(wait=True)


def _copied(value: Any) -> Any:
    """Copy all tensors in nested containers to the CPU; training goes on to change the originals."""
    if isinstance(value, Tensor):
        return value.detach().cpu() if value.device.type != "cpu" else value.detach().clone()
    if isinstance(value, Mapping):
        return {key: _copied(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_copied(inner) for inner in value)
    return value
