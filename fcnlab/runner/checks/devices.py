"""Check that networks can be trained by several processes on the CPU."""

from __future__ import annotations

from collections.abc import Iterable

from fcnlab.config.grid.cell import Cell
from fcnlab.config.trial import canonical
from fcnlab.errors import ConfigError
from fcnlab.lab import Lab
from fcnlab.runner.checks.network import build_network


def check_cpu_processes(cells: Iterable[Cell], lab: Lab, processes: int) -> None:
    """Check that no network has batch norms that use the statistics of a batch, which need GPUs in several processes.

    Each distinct network is built once on the meta device.

    Args:
        cells: the cells to train.
        lab: the lab of the extensions.
        processes: number of processes that train one trial.

    Raises:
        ConfigError: a network has such batch norms, or cannot be built.
    """
    from fcnlab.training.distributed import find_unsynchronized_norms  # imports torch

    checked: set[str] = set()
    for cell in cells:
        recipe, channels = cell.recipe, cell.dataset.image_channels
        identity = canonical([cell.variant.content(), recipe.batch_norm, recipe.freeze, channels])
        if identity in checked:
            continue
        checked.add(identity)
        model = build_network(cell.variant, recipe, 2, channels, lab, "meta")
        problem = find_unsynchronized_norms(model, processes)
        if problem is not None:
            raise ConfigError(f"--devices-per-trial {processes}: cell '{cell.label}': {problem}")
