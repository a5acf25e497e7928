"""Check that heads, loss terms and transforms that are not built in can be imported."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from fcnlab.config.grid.cell import Cell
from fcnlab.config.head import CustomHead, Head, SmpHead
from fcnlab.config.recipe import Recipe
from fcnlab.lab import Lab
from fcnlab.runner.executors.call_process import Call


def check_code(cells: Iterable[Cell], lab: Lab, call: Call) -> None:
    """Import the code of cells that is not built in, and build heads of smp with options.

    So errors are reported before a trial is started.

    Args:
        cells: the cells.
        lab: the lab of the extensions.
        call: calls the functions that import torch.

    Raises:
        ConfigError: a class cannot be imported, or the user has not allowed it.
        ModelError: an option of a head of smp has an invalid value.
    """
    with_code = [(cell.variant.head, cell.recipe) for cell in cells if _has_code(cell)]
    if with_code:
        call(_check_code, with_code, lab)


def _has_code(cell: Cell) -> bool:
    recipe = cell.recipe
    return (
        isinstance(cell.variant.head, CustomHead | SmpHead)
        or recipe.loss.custom is not None
        or recipe.transform is not None
    )


def _check_code(components: Sequence[tuple[Head, Recipe]], lab: Lab) -> None:
    for head, recipe in components:
        lab.check_head(head)
        lab.check_recipe(recipe)
