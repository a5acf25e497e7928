"""Footnotes on the images: repeated ones, and those that are held out in a cross-validation."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import pandas as pd

from fcnlab.analysis import select_folds
from fcnlab.config.dataset import CrossValidation, FolderDataset
from fcnlab.config.grid.grid import Cell, Grid
from fcnlab.report.dataset_groups import DatasetGroup
from fcnlab.report.footnotes.names import list_cells, name_cell
from fcnlab.runner.checks.repeated_images import RepeatedImages

if TYPE_CHECKING:
    from fcnlab.report.report import Report


def describe_repeated_images(grid: Grid, repeated: Iterable[RepeatedImages]) -> list[str]:
    """Describe the images of the reported split that are equal to training images.

    Args:
        grid: the grid.
        repeated: the repeated images of all cells.
    """
    return [
        f"Metrics{f' of {name_cell(grid, images.cell)}' if images.cell else ''} are too high: trained on {images}."
        for images in repeated
        if images.is_reported
    ]


def describe_missing_images(datasets: Sequence[str]) -> list[str]:
    """Describe the datasets whose evaluated images were not compared with their training images.

    Args:
        datasets: names of the datasets.
    """
    if not datasets:
        return []
    return [f"Not checked: images of {', '.join(datasets)} in more than one split, because the files are missing here."]


def describe_folds(grid: Grid, groups: Sequence[DatasetGroup], finished: pd.DataFrame) -> list[str]:
    """Describe the cross-validations of each dataset: one line for each number of folds or fixed fold.

    Args:
        grid: the grid.
        groups: the cells by dataset.
        finished: frame of the finished trials.
    """
    lines = []
    for group in groups:
        where = f" on {group.name}" if len(groups) > 1 else ""
        cells = [cell for cell in grid.cells if cell.label in group.cells]
        for parts in dict.fromkeys(map(_find_cross_validation, cells)):
            if parts is None:
                continue
            if parts.fold is not None:
                lines.append(f"Cross-validation{where}: all trials hold out fold {parts.fold} of {parts.folds}.")
                continue
            own = [cell.label for cell in cells if _find_cross_validation(cell) == parts]
            seeds = list(map(int, finished["seed"][finished["cell"].isin(own)].unique()))
            held_out, number = len(select_folds(seeds, parts)), parts.folds
            missing = f"; folds held out so far: {held_out}" if held_out < number else ""
            repeated = f"; every further {number} seeds use another division" if max(seeds, default=0) >= number else ""
            lines.append(
                f"Cross-validation{where} in {number} folds: each image is held out once per {number} seeds"
                f"{missing}{repeated}."
            )
    return list(dict.fromkeys(lines))


def _find_cross_validation(cell: Cell) -> CrossValidation | None:
    return cell.dataset.cross_validation if isinstance(cell.dataset, FolderDataset) else None


def describe_other_images(report: Report) -> str:
    """Name the cells that are not shown by class and in pictures.

    Args:
        report: report of the grid.

    Returns:
        A sentence; an empty text if all cells were evaluated on the same images.
    """
    shown = report.groups[0]
    others = [name_cell(report.grid, cell) for cell in report.records.by_cell if cell not in shown.same]
    if not others:
        return ""
    verb = "was" if len(others) == 1 else "were"
    return (
        f"Classes and images are shown without {list_cells(others)}, which {verb} evaluated on other images or "
        f"classes than {name_cell(report.grid, shown.reference)}."
    )
