"""The slots of a machine: the CPU threads and devices on which trials run at the same time."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from fcnlab.config.recipe import Recipe
from fcnlab.limits import usable_cores, usable_memory
from fcnlab.runner.executors.gpus import select_gpus
from fcnlab.settings import DEFAULT_OPTIONS, DEVICE_VARIABLE, RunOptions

MEMORY_OF_A_PROCESS = 2**30
MEMORY_OF_A_PIXEL = 3 * 2**10
"""Estimated bytes of a trial on the CPU: a constant, and for each pixel of a batch.

Measured: a MobileNetV2 FCN-32s peaked at 12.2 GB in fp32 for 32 crops of 320x480 (2.5 kB per pixel), at 8.3 GB in bf16.
"""


@dataclass(frozen=True)
class Slot:
    """The CPU threads and the devices on which a worker runs one trial at a time.

    Attributes:
        threads: CPU threads of the trial.
        gpu: GPUs in the format of CUDA_VISIBLE_DEVICES; None trains on the CPU.
        devices: number of devices that train a trial; CPU processes share the threads.
        verify: whether the worker checks that torch sees no GPU, if none was found and the CPU was not requested.
    """

    threads: int
    gpu: str | None = None
    devices: int = 1
    verify: bool = False

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables of a process in this slot."""
        variables = {"OMP_NUM_THREADS": str(self.threads), "OPENBLAS_NUM_THREADS": "1"}
        variables[DEVICE_VARIABLE] = "cpu" if self.gpu is None else "cuda"
        return variables if self.verify else variables | {"CUDA_VISIBLE_DEVICES": self.gpu or ""}


def plan_slots(recipes: Iterable[Recipe], options: RunOptions = DEFAULT_OPTIONS) -> list[Slot]:
    """Return the slots of this machine.

    Without GPUs, cores and memory limit the number of slots. The result depends on all recipes of a grid, including
    finished trials: the number of threads changes the last digits of metrics on the CPU, so it must not change when a
    grid is resumed.

    Args:
        recipes: all recipes of the grid.
        options: the options of the run; GPUs that do not fill a slot remain idle.

    Returns:
        One slot for each parallel trial.

    Raises:
        RunError: `device` is `cuda` and no GPU is visible.
    """
    gpus, cores, devices = select_gpus(options.device), usable_cores(), options.devices_per_trial
    if gpus:
        groups = [",".join(gpus[i : i + devices]) for i in range(0, len(gpus) - devices + 1, devices)]
        count = options.workers or options.per_gpu * len(groups)
        threads = options.threads or max(1, cores // count)
        return [Slot(threads, groups[i % len(groups)], devices) for i in range(count)]
    memory = max(estimate_memory(recipe, devices) for recipe in recipes)
    count = options.workers or max(1, min(cores // devices, usable_memory() // memory))
    threads = options.threads or max(1, cores // count)
    verify = options.device == "auto" and "CUDA_VISIBLE_DEVICES" not in os.environ
    return [Slot(threads, devices=devices, verify=verify)] * count


def estimate_memory(recipe: Recipe, processes: int = 1) -> int:
    """Return the estimated memory of a trial on the CPU.

    Args:
        recipe: the recipe of the trial.
        processes: number of processes of the trial.

    Returns:
        Memory in bytes.
    """
    return (
        processes * MEMORY_OF_A_PROCESS + MEMORY_OF_A_PIXEL * recipe.batch_size * recipe.crop.height * recipe.crop.width
    )


def max_trials_per_gpu(slots: Sequence[Slot], trials: int) -> int:
    """Return the largest number of trials on one GPU; 1 on the CPU.

    Args:
        slots: slots of the executor.
        trials: number of trials.

    Returns:
        The number of trials.
    """
    return max(Counter(slot.gpu for slot in slots[:trials] if slot.gpu is not None).values(), default=1)
