"""Check that the code of heads, loss terms and transforms that are not built in can be used."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from fcnlab.config.grid.cell import Cell
from fcnlab.config.head import CustomHead, Head, SmpHead
from fcnlab.lab import Lab
from fcnlab.runner.executors.call_process import Call


def check_code(cells: Iterable[Cell], lab: Lab, call: Call) -> None:
    """Import the classes of cells that are not built in, and build heads of smp with options.

    So errors are reported before a trial is started.

    Args:
        cells: the cells.
        lab: the lab of the extensions.
        call: calls the functions that import torch.

    Raises:
        ConfigError: a class cannot be imported, or the user has not allowed it.
        ModelError: an option of a head of smp has an invalid value.
    """
    for cell in cells:
        recipe = cell.recipe
        check_head(cell.variant.head, lab, call)
        if recipe.loss.custom is not None:
            call(_import_class, "loss", recipe.loss.custom.type, lab)
        if recipe.transform is not None:
            call(_import_class, "transform", recipe.transform.type, lab)


def check_head(spec: Head, lab: Lab, call: Call) -> None:
    """Import the class of a head that is not built in, or build a head of smp with options.

    Args:
        spec: configuration of the head.
        lab: the lab of the extensions.
        call: calls the functions that import torch.

    Raises:
        ConfigError: the class cannot be imported, or the user has not allowed it.
        ModelError: an option of a head of smp has an invalid value.
    """
    if isinstance(spec, CustomHead):
        call(_import_class, "head", spec.type, lab)
    elif isinstance(spec, SmpHead) and spec.options:
        call(_build_smp_head, spec)


def _import_class(kind: str, name: str, lab: Lab) -> None:
    from fcnlab.data.transforms import Transform
    from fcnlab.models import heads
    from fcnlab.training.loss_term import LossTerm

    bases: Mapping[str, type[object]] = {"head": heads.Head, "loss": LossTerm, "transform": Transform}
    lab.extensions.load(kind, name, bases[kind])


def _build_smp_head(spec: SmpHead) -> None:
    from fcnlab.models.heads.smp import check_options

    check_options(**spec.arguments)
