"""Settings of how trials run that the command line, drivers and workers share; importing them loads nothing else."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

Device = Literal["auto", "cpu", "cuda"]
"""Which kind of device trains: `cuda` and `cpu` are requirements, `auto` is CUDA where there is a GPU."""

DEVICE_VARIABLE = "FCNLAB_DEVICE"
"""Environment variable that chooses the device of a process: `cpu` or `cuda`; by default CUDA where torch finds it."""

CHECKPOINT_EVERY = 30.0
"""Seconds between two checkpoints of a trial, unless `--checkpoint-every` sets another interval."""


def cache_folder() -> Path:
    """Return the folder of files that fcnlab can rebuild: FCNLAB_CACHE, or else `fcnlab` in the user's cache folder."""
    folder = os.environ.get("FCNLAB_CACHE")
    return Path(folder) if folder else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fcnlab"
