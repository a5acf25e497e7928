"""Settings of runs that the command line, drivers and workers share."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from fcnlab.errors import ConfigError, RunError
from fcnlab.paths import expand_home

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

KILLED = 137
"""Exit code of a trial of which one process was killed by SIGKILL, as shells report it: 128 + 9."""


@dataclass(frozen=True)
class RunOptions:
    """Options of a run: where and how its trials run. None of them is part of the key of a trial.

    Attributes:
        executor: `process` starts workers on this machine, `serial` runs in the driver, `ray` on a Ray cluster;
            or the name of an extension.
        workers: number of trials that run at the same time; None chooses it for the machine.
        threads: number of CPU threads of each trial; None chooses it for the machine.
        per_gpu: number of trials that share a GPU.
        devices_per_trial: number of devices that train one trial: GPUs, or CPU processes without a GPU.
        device: `cuda`, `cpu`, or `auto` for CUDA if there is a GPU.
        address: address of a running Ray cluster; None starts one on this machine.
        retry_failed: run failed trials again.
        fail_fast: after the first failed trial, start no more; running trials pause after their epoch.
        wait: after the last trial that can be started here, wait until those of other drivers have ended.
        checkpoint_every: seconds between two checkpoints of a trial; 0 writes one after each epoch.
        log_every: number of steps between two training losses that a trial records; None records none.
        hang_timeout: least number of seconds without progress after which a trial is killed and resumed; None never
            does so.
    """

    executor: str = "process"
    workers: int | None = None
    threads: int | None = None
    per_gpu: int = 1
    devices_per_trial: int = 1
    device: Device = "auto"
    address: str | None = None
    retry_failed: bool = False
    fail_fast: bool = False
    wait: bool = True
    checkpoint_every: float = 30.0
    log_every: int | None = None
    hang_timeout: float | None = 1800.0

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            RunError: an option has an invalid value, or two options exclude each other.
        """
        if self.device not in get_args(Device):
            raise RunError(f"--device {self.device}: expected one of {', '.join(get_args(Device))}")
        for option, count in (
            ("--workers", self.workers),
            ("--threads", self.threads),
            ("--per-gpu", self.per_gpu),
            ("--devices-per-trial", self.devices_per_trial),
            ("--log-every", self.log_every),
        ):
            if count is not None and count < 1:
                raise RunError(f"{option} {count}: expected a positive number, such as 1")
        if not 0 <= self.checkpoint_every < math.inf:
            raise RunError(f"--checkpoint-every {self.checkpoint_every:g}: expected a number of seconds, such as 30")
        if self.hang_timeout is not None and not 0 < self.hang_timeout < math.inf:
            raise RunError(
                f"--hang-timeout {self.hang_timeout:g}: expected a positive number of seconds, such as 600, or off"
            )
        if self.executor == "serial" and (self.workers or 1) > 1:
            raise RunError(f"--executor serial runs one trial at a time, not {self.workers}; leave out --workers")
        if self.executor != "ray" and self.address is not None:
            raise RunError(f"--address requires --executor ray, not {self.executor}")
        if self.devices_per_trial > 1 and self.executor in ("serial", "ray"):
            raise RunError(f"--devices-per-trial goes with --executor process, not {self.executor}")
        if self.devices_per_trial > 1 and self.per_gpu > 1:
            raise RunError("--devices-per-trial gives a trial several GPUs, --per-gpu a part of one; leave one out")


DEFAULT_OPTIONS = RunOptions()
"""Options of a run with their default values."""


def cache_folder() -> Path:
    """Return the folder of files that fcnlab can rebuild: FCNLAB_CACHE, or else `fcnlab` in the user's cache folder.

    Raises:
        ConfigError: the user has no home, as in some containers.
    """
    folder = os.environ.get("FCNLAB_CACHE")
    if folder:
        return expand_home(folder)
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fcnlab"
    except RuntimeError:
        raise ConfigError(
            f"user {os.getuid()} has no home folder, and HOME is not set; set FCNLAB_CACHE to a folder that only this "
            "user can write"
        ) from None
