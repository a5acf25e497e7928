"""What makes no sense in a grid whose cells are each sound: two that are one, figures that nobody should quote."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from fcnlab.config.grid.cell import Cell
from fcnlab.config.grid.file import GridFile

SHOWN = 8
"""How many cells that stand twice are named."""


def twins(cells: Sequence[Cell]) -> list[str]:
    """Cells that are the same, or that a table cannot tell apart."""
    found = []
    seen: dict[tuple[str, ...], str] = {}
    labels: set[str] = set()
    texts: dict[int, str] = {}
    for cell in cells:
        content, label = _content(cell, texts), cell.label
        if content in seen:
            found.append(
                f"the cells '{seen[content]}' and '{label}' are the same; take one out, or say under 'when' in which "
                "cells an axis varies"
            )
        elif label in labels:
            found.append(f"two cells are called '{label}'; say their values so that a table can tell them apart")
        seen.setdefault(content, label)
        labels.add(label)
    return found if len(found) <= SHOWN else [*found[:SHOWN], f"{len(found) - SHOWN} more cells stand twice"]


def _content(cell: Cell, texts: dict[int, str]) -> tuple[str, ...]:
    """What makes a cell another than the next; `texts` are those of parts that many cells have in common."""
    variant = cell.variant
    parts = (variant.backbone, variant.head, variant.upsampler, cell.dataset, cell.recipe)
    for part in parts:
        if id(part) not in texts:
            texts[id(part)] = repr(part.content())
    start = repr(cell.init_from.content() if isinstance(cell.init_from, Cell) else cell.init_from)
    return (*(texts[id(part)] for part in parts), start)


def optimism(file: GridFile, cells: Iterable[Cell]) -> list[str]:
    """An epoch chosen on the very images that are reported makes every figure too good."""
    untested = dict.fromkeys(cell.names["dataset"] for cell in cells if cell.dataset.splits.test is None)
    return [
        f"checkpoint: 'best' is selected on val, and dataset {name} has no test split to report on; "
        "use checkpoint: last"
        for name in untested
        if file.checkpoint == "best"
    ]


def stops(file: GridFile, cells: Iterable[Cell]) -> list[str]:
    """Cells can be judged only after epochs that all of them have, and at which all are scored."""
    found = []
    lengths: dict[tuple[int, int], Cell] = {}
    for cell in cells:
        lengths.setdefault((cell.recipe.epochs, cell.recipe.validate_every), cell)
    for (epochs, every), cell in lengths.items():
        for after in file.early_stopping.epochs if file.early_stopping is not None else ():
            if after >= epochs:
                found.append(
                    f"early_stopping: after: {after}: '{cell.label}' ends with epoch {epochs}; give an earlier epoch"
                )
            elif after % every:
                found.append(
                    f"early_stopping: after: {after}: '{cell.label}' is scored on val every {every} epochs; "
                    "give a multiple, or set recipe.validate_every"
                )
    return found
