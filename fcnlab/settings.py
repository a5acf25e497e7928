"""Settings of runs that the command line, drivers and workers share."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from fcnlab.errors import ConfigError

Device = Literal["auto", "cpu", "cuda"]
"""Kind of the training device: `cuda` and `cpu` are requirements, `auto` is CUDA if there is a GPU."""

DEVICE_VARIABLE = "FCNLAB_DEVICE"
"""Environment variable that sets the device of a process, `cpu` or `cuda`; by default CUDA if torch finds it."""

ExecutorName = Literal["process", "serial", "ray"]
"""Names of the built-in executors."""

TrackerName = Literal["mlflow", "tensorboard"]
"""Names of the built-in trackers."""

TRACKER_VARIABLE = "FCNLAB_TRACKER"
"""Environment variable with the trackers of all commands, separated by commas, or `none`; by default `mlflow`."""

ALLOW_EXTENSIONS_VARIABLE = "FCNLAB_ALLOW_EXTENSIONS"
"""Environment variable that, if it is 1, allows to run the Python files in a lab's `registry/extensions.yaml`."""

CHECKPOINT_EVERY = 30.0
"""Default number of seconds between two checkpoints of a trial (`--checkpoint-every`)."""


HANG_TIMEOUT = 1800.0
"""Default number of seconds without progress after which a trial is stopped and resumed (`--hang-timeout`)."""


KILLED = 137
"""Exit code of a trial of which one process was killed by SIGKILL, as shells report it: 128 + 9."""


def cache_folder() -> Path:
    """Return the folder of files that fcnlab can rebuild: FCNLAB_CACHE, or else `fcnlab` in the user's cache folder.

    Raises:
        ConfigError: the user has no home, as in some containers.
    """
    folder = os.environ.get("FCNLAB_CACHE")
    if folder:
        return Path(folder)
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fcnlab"
    except RuntimeError:
        raise ConfigError(
            f"user {os.getuid()} has no home folder, and HOME is not set; set FCNLAB_CACHE to a folder that only this "
            "user can write"
        ) from None
