"""Checks of a grid whose cells are valid: duplicates, checkpoint selection, early stopping."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from fcnlab.config.grid.cell import Cell
from fcnlab.config.grid.file import GridFile
from fcnlab.config.trial import canonical

SHOWN = 8
"""Maximum number of duplicates in an error."""


def find_duplicates(cells: Sequence[Cell]) -> list[str]:
    """List the cells that are equal, or that have the same label in the table.

    Args:
        cells: cells of a grid.

    Returns:
        One error per line.
    """
    errors = []
    seen: dict[str, str] = {}
    labels: set[str] = set()
    for cell in cells:
        content, label = canonical(cell.content()), cell.label
        if content in seen:
            errors.append(
                f"the cells '{seen[content]}' and '{label}' are the same; remove one, or let an axis vary only in some "
                "cells by 'when'"
            )
        elif label in labels:
            errors.append(f"two cells have the label '{label}'; use values that differ in the table")
        seen.setdefault(content, label)
        labels.add(label)
    return errors if len(errors) <= SHOWN else [*errors[:SHOWN], f"{len(errors) - SHOWN} more cells are duplicates"]


def check_channels(cells: Iterable[Cell]) -> list[str]:
    """Check that the backbones take images of the number of channels of the dataset.

    Args:
        cells: cells of the grid.

    Returns:
        One error per line.
    """
    return list(
        dict.fromkeys(
            f"backbone {cell.names['backbone']} takes images of 3 channels, and dataset {cell.names['dataset']} has "
            f"'channels: {cell.dataset.image_channels}'; use a backbone of timm"
            for cell in cells
            if cell.dataset.image_channels != 3 and cell.variant.backbone.paper is not None
        )
    )


def check_checkpoint(file: GridFile, cells: Iterable[Cell]) -> list[str]:
    """Check that a checkpoint is not selected on the images that are reported, which would bias the metrics.

    Args:
        file: the grid file.
        cells: cells of the grid.

    Returns:
        One error per line.
    """
    if file.checkpoint != "best":
        return []
    untested = dict.fromkeys(cell.names["dataset"] for cell in cells if cell.dataset.splits.test is None)
    return [
        f"checkpoint: 'best' is selected on val, and dataset {name} has no test split to report on; "
        "use checkpoint: last"
        for name in untested
    ]


def check_early_stopping(file: GridFile, cells: Iterable[Cell]) -> list[str]:
    """Check that all cells are validated at the epochs of `early_stopping`, before their last epoch.

    No cell may be initialized from another cell: it would wait for the end of that cell's trials, which pause until all
    cells have reached the epoch.

    Args:
        file: the grid file.
        cells: cells of the grid.

    Returns:
        One error per line.
    """
    if file.early_stopping is None:
        return []
    cells = list(cells)
    errors = _find_initial_cells(cells)
    lengths: dict[tuple[int, int], Cell] = {}
    for cell in cells:
        lengths.setdefault((cell.recipe.epochs, cell.recipe.validate_every), cell)
    for (epochs, every), cell in lengths.items():
        for after in file.early_stopping.epochs:
            where = f"early_stopping: after: {after}: '{cell.label}'"
            if after >= epochs:
                errors.append(f"{where} ends with epoch {epochs}; give an earlier epoch")
            elif after % every:
                errors.append(
                    f"{where} is validated every {every} epochs; give a multiple, or set recipe.validate_every"
                )
    return errors


def _find_initial_cells(cells: Sequence[Cell]) -> list[str]:
    """Return an error for each cell that is initialized from the trials of another cell, also indirectly."""
    labels = {canonical(cell.content()): cell.label for cell in cells}
    errors = []
    for cell in cells:
        earlier = cell.init_from
        while isinstance(earlier, Cell):
            label = labels.get(canonical(earlier.content()))
            if label is not None:
                errors.append(
                    f"early_stopping: '{cell.label}' is initialized from the cell '{label}' and waits for its last "
                    "epoch; remove one of the two cells, or early_stopping"
                )
            earlier = earlier.init_from
    return errors
