"""Table of the IoU of each class, with one column per cell that was evaluated on the same images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from fcnlab.report.report import Report
from fcnlab.report.tables.columns import format_mean_std
from fcnlab.report.tables.table import Table

MAX_CELLS = 12
"""Most columns of cells: the baseline and the best of the others."""


def make_class_table(report: Report) -> Table | None:
    """Return the table of the IoU of each class, or None where no trial has finished.

    Args:
        report: report of a grid.
    """
    shown = report.select_cells(MAX_CELLS)
    if not shown:
        return None
    iou, images = compute_class_iou(report, shown), count_class_images(report)
    rows = tuple(
        (
            name,
            str(images.get(index, "")),
            *(format_mean_std(iou[cell][index].mean(), iou[cell][index].std()) for cell in shown),
        )
        for index, name in enumerate(report.classes)
        if all(index in frame for frame in iou.values())
    )
    return Table(("class", "images", *map(report.grid.display_name, shown)), rows, 1)


def compute_class_iou(report: Report, cells: Sequence[str]) -> dict[str, pd.DataFrame]:
    """Return the IoU of each class of cells, as fractions of 1 with one row per seed and one column per class.

    Args:
        report: report of a grid.
        cells: labels of cells with finished trials.
    """
    by_cell, checkpoint = report.records.by_cell, report.records.checkpoint
    found = {cell: [one.find_metrics(one.report_split, checkpoint) for one in by_cell[cell].values()] for cell in cells}
    return {
        cell: pd.DataFrame([one.class_iou for one in metrics if one is not None]).astype(float)
        for cell, metrics in found.items()
    }


def count_class_images(report: Report) -> dict[int, int]:
    """Count the images in which each class is labeled; empty without counts.

    Args:
        report: report of a grid.
    """
    for cell in report.evaluated.cells:
        for counts in report.records.counts(cell).values():
            return dict(enumerate(np.count_nonzero(counts[:, :, 2], axis=0).tolist()))
    return {}
