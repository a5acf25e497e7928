"""Creation of the executor that the options of a run select."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import cast, get_args

from fcnlab.config.grid.cell import Cell
from fcnlab.config.recipe import Recipe
from fcnlab.config.trial import canonical
from fcnlab.errors import ConfigError, RunError
from fcnlab.lab import Lab
from fcnlab.limits import usable_cores
from fcnlab.runner.checks.network import build_network
from fcnlab.runner.executors.base import Executor
from fcnlab.runner.executors.gpus import select_gpus
from fcnlab.runner.executors.process import ProcessExecutor
from fcnlab.runner.executors.serial import SerialExecutor
from fcnlab.runner.executors.slots import Slot, estimate_memory, plan_slots
from fcnlab.settings import ExecutorName, RunOptions


def check_executor(options: RunOptions, cells: Iterable[Cell], lab: Lab) -> None:
    """Check that this machine has the devices of a run, and that the trials of the cells can use them.

    Args:
        options: the options of the run.
        cells: cells of a grid; the cells that they are initialized from are checked too.
        lab: lab of the extensions.

    Raises:
        RunError: this machine has fewer devices, no GPU although `device` is `cuda`, or cannot fork the processes of
            a trial.
        ConfigError: a recipe's batches cannot be split among the devices, a network has batch norms that need GPUs
            for this, or there is no such executor.
    """
    if not _is_builtin(options.executor):
        _load_extension(options.executor, lab)
    gpus = len(select_gpus(options.device)) if options.address is None else 0  # a cluster has its own
    devices = options.devices_per_trial
    if devices == 1:
        return
    if sys.platform != "linux":
        raise RunError(f"--devices-per-trial {devices}: requires Linux, where the processes of a trial can be forked")
    cores = usable_cores()
    if devices > (gpus or cores):
        have = f"{gpus} GPUs" if gpus else f"no GPU and {cores} cores"
        raise RunError(f"--devices-per-trial {devices}: this machine has {have}")
    cells = list(cells)
    for cell in cells:
        _check_shares(cell, devices)
    if not gpus:
        _check_batch_norms(cells, lab, devices)
    earlier = [cell.init_from for cell in cells if isinstance(cell.init_from, Cell)]
    if earlier:
        check_executor(options, earlier, lab)


def create_executor(options: RunOptions, lab: Lab, recipes: Sequence[Recipe]) -> Executor:
    """Create the executor of a run.

    Args:
        options: the options of the run.
        lab: the lab in which the trials run.
        recipes: the recipes of the trials.

    Raises:
        RunError: Ray is not installed, or its cluster cannot be reached or lacks what a trial needs.
    """
    if options.executor == "ray":
        return _create_ray_executor(options, lab, recipes)
    if options.executor == "serial":
        return SerialExecutor(lab, plan_slots(recipes, replace(options, workers=1))[0])
    slots = plan_slots(recipes, options)
    if _is_builtin(options.executor):
        return ProcessExecutor(lab, slots)
    return _load_extension(options.executor, lab)(lab, slots)


def worker_environment(options: RunOptions, recipes: Iterable[Recipe]) -> dict[str, str] | None:
    """Return the environment variables of the workers that a run starts on this machine.

    Args:
        options: the options of the run, which `check_executor` has checked.
        recipes: the recipes of the trials.

    Returns:
        The variables of the first worker; None if the executor is not `process`.
    """
    if options.executor != "process":
        return None
    return {**os.environ, **plan_slots(recipes, options)[0].environment}


def _is_builtin(executor: str) -> bool:
    return executor in get_args(ExecutorName)


def _load_extension(executor: str, lab: Lab) -> Callable[[Lab, list[Slot]], Executor]:
    executor_class = lab.extensions.load("executor", executor, Executor)  # type: ignore[type-abstract]
    return cast(Callable[[Lab, list[Slot]], Executor], executor_class)


def _create_ray_executor(options: RunOptions, lab: Lab, recipes: Sequence[Recipe]) -> Executor:
    from fcnlab.runner.executors.ray.cluster import TrialResources, choose_threads, has_gpus, living_nodes
    from fcnlab.runner.executors.ray.executor import RayExecutor

    gpus = 1 / options.per_gpu if options.device != "cpu" and has_gpus(options.address) else 0.0
    if options.device == "cuda" and not gpus:
        raise RunError("--device cuda: no node of the Ray cluster has a GPU; use --device cpu or auto")
    ask = TrialResources(options.threads or 1, gpus, 0 if gpus else max(map(estimate_memory, recipes)))
    if options.address is None:
        ask = replace(ask, threads=plan_slots(recipes, options)[0].threads)
    elif options.threads is None:
        ask = replace(ask, threads=choose_threads(ask, living_nodes(), options.workers))
    return RayExecutor(lab, ask, options.address, options.workers)


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


def _check_batch_norms(cells: Iterable[Cell], lab: Lab, processes: int) -> None:
    """Check that no network has batch norms that use the statistics of a batch, which need GPUs in several processes.

    Each distinct network is built once on the meta device.
    """
    from fcnlab.training.distributed import find_unsynchronized_norms  # imports torch

    checked: set[str] = set()
    for cell in cells:
        recipe, channels = cell.recipe, cell.dataset.image_channels
        identity = canonical([cell.variant.content(), recipe.batch_norm, recipe.freeze, channels])
        if identity in checked:
            continue
        checked.add(identity)
        problem = find_unsynchronized_norms(build_network(cell.variant, recipe, 2, channels, lab, "meta"), processes)
        if problem is not None:
            raise ConfigError(f"--devices-per-trial {processes}: cell '{cell.label}': {problem}")
