"""Configuration of the executor: its type, the number of parallel trials and their devices."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import cast, get_args

from fcnlab.config.grid.cell import Cell
from fcnlab.config.recipe import Recipe
from fcnlab.errors import ConfigError, RunError
from fcnlab.lab import Lab
from fcnlab.processor import usable_cores
from fcnlab.runner.checks.devices import check_cpu_processes
from fcnlab.runner.executors.base import Executor
from fcnlab.runner.executors.gpus import select_gpus
from fcnlab.runner.executors.process import ProcessExecutor
from fcnlab.runner.executors.serial import SerialExecutor
from fcnlab.runner.executors.slots import Slot, estimate_memory, plan_slots
from fcnlab.settings import Device, ExecutorName


@dataclass(frozen=True)
class ExecutorConfig:
    """Configuration of an executor; None chooses a value for this machine.

    Attributes:
        executor: `process` starts workers on this machine, `serial` runs in the driver, `ray` on a Ray cluster;
            or the name of an extension.
        workers: number of parallel trials.
        threads: CPU threads of each trial.
        per_gpu: number of trials that share a GPU.
        address: address of a running Ray cluster; None starts one on this machine.
        devices: number of devices that train one trial: GPUs, or CPU processes without a GPU.
        device: `cuda`, `cpu`, or `auto` for CUDA if a GPU is available.
    """

    executor: str = "process"
    workers: int | None = None
    threads: int | None = None
    per_gpu: int = 1
    address: str | None = None
    devices: int = 1
    device: Device = "auto"

    def __post_init__(self) -> None:
        if self.executor == "serial" and (self.workers or 1) > 1:
            raise RunError(f"--executor serial runs one trial at a time, not {self.workers}; leave out --workers")
        if self.executor != "ray" and self.address is not None:
            raise RunError(f"--address requires --executor ray, not {self.executor}")
        if self.devices > 1 and self.executor in ("serial", "ray"):
            raise RunError(f"--devices-per-trial goes with --executor process, not {self.executor}")
        if self.devices > 1 and self.per_gpu > 1:
            raise RunError("--devices-per-trial gives a trial several GPUs, --per-gpu a part of one; leave one out")

    def check(self, cells: Iterable[Cell], lab: Lab | None = None) -> None:
        """Check that the trials of the cells can run on `devices` devices.

        Args:
            cells: cells of a grid; the cells that they are initialized from are checked too.
            lab: lab of the extensions; None leaves out the checks of an executor of the lab and of networks.

        Raises:
            RunError: this machine has fewer devices, or no GPU although `device` is `cuda`.
            ConfigError: a recipe's batches cannot be split among the devices, a network has batch norms that need GPUs
                for this, or there is no such executor.
        """
        if lab is not None and not self._is_builtin:
            self._load_extension(lab)
        gpus = len(select_gpus(self.device)) if self.address is None else 0  # a cluster has its own
        if self.devices == 1:
            return
        cores = usable_cores()
        if self.devices > (gpus or cores):
            have = f"{gpus} GPUs" if gpus else f"no GPU and {cores} cores"
            raise RunError(f"--devices-per-trial {self.devices}: this machine has {have}")
        cells = list(cells)
        for cell in cells:
            _check_shares(cell, self.devices)
        if lab is not None and not gpus:
            check_cpu_processes(cells, lab, self.devices)
        earlier = [cell.init_from for cell in cells if isinstance(cell.init_from, Cell)]
        if earlier:
            self.check(earlier, lab)

    def create_executor(self, lab: Lab, recipes: Sequence[Recipe]) -> Executor:
        """Create the executor for trials of these recipes.

        Raises:
            RunError: Ray is not installed, or its cluster cannot be reached or lacks what a trial needs.
        """
        if self.executor == "ray":
            return self._create_ray_executor(lab, recipes)
        if self.executor == "serial":
            return SerialExecutor(lab, plan_slots(recipes, 1, self.threads, device=self.device)[0])
        slots = plan_slots(recipes, self.workers, self.threads, self.per_gpu, self.devices, self.device)
        if self._is_builtin:
            return ProcessExecutor(lab, slots)
        return self._load_extension(lab)(lab, slots)

    def _load_extension(self, lab: Lab) -> Callable[[Lab, list[Slot]], Executor]:
        found = lab.extensions.load("executor", self.executor, Executor)  # type: ignore[type-abstract]
        return cast(Callable[[Lab, list[Slot]], Executor], found)

    @property
    def _is_builtin(self) -> bool:
        return self.executor in get_args(ExecutorName)

    def _create_ray_executor(self, lab: Lab, recipes: Sequence[Recipe]) -> Executor:
        from fcnlab.runner.executors.ray.cluster import TrialResources, choose_threads, has_gpus, living_nodes
        from fcnlab.runner.executors.ray.executor import RayExecutor

        gpus = 1 / self.per_gpu if self.device != "cpu" and has_gpus(self.address) else 0.0
        if self.device == "cuda" and not gpus:
            raise RunError("--device cuda: no node of the Ray cluster has a GPU; use --device cpu or auto")
        ask = TrialResources(self.threads or 1, gpus, 0 if gpus else max(map(estimate_memory, recipes)))
        if self.address is None:
            here = plan_slots(recipes, self.workers, self.threads, self.per_gpu, device=self.device)
            ask = replace(ask, threads=here[0].threads)
        elif self.threads is None:
            ask = replace(ask, threads=choose_threads(ask, living_nodes(), self.workers))
        return RayExecutor(lab, ask, self.address, self.workers)


def _check_shares(cell: Cell, devices: int) -> None:
    recipe, where = cell.recipe, f"--devices-per-trial {devices}: recipe {cell.names['recipe']}"
    part = recipe.batch_size // recipe.grad_accum_steps
    if part % devices:
        cut = f" in {recipe.grad_accum_steps} parts" if recipe.grad_accum_steps > 1 else ""
        raise ConfigError(
            f"{where}: a batch of {recipe.batch_size}{cut} cannot be shared out equally among {devices} devices; "
            f"use a divisor of {part}, or another recipe.batch_size"
        )
    if terms := recipe.loss.batch_terms:
        raise ConfigError(
            f"{where}: loss.{terms[0]} needs the whole batch, and each device has only a share of it; "
            "leave out --devices-per-trial"
        )
