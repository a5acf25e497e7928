"""Table of the IoU of each class, with one column per cell."""

from __future__ import annotations

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
    by_cell, checkpoint = report.records.by_cell, report.records.checkpoint
    shown = [cell for cell in _select_cells(report) if cell in by_cell]
    if not shown:
        return None
    iou = {
        cell: pd.DataFrame(
            [
                found.class_iou
                for one in by_cell[cell].values()
                if (found := one.find_metrics(one.report_split, checkpoint))
            ]
        ).astype(float)
        for cell in shown
    }
    images = _count_images(report)
    rows = tuple(
        (
            name,
            images.get(index, ""),
            *(format_mean_std(iou[cell][index].mean(), iou[cell][index].std()) for cell in shown),
        )
        for index, name in enumerate(report.records.classes)
        if all(index in frame for frame in iou.values())
    )
    return Table(("class", "images", *map(report.grid.display_name, shown)), rows, 1)


def _select_cells(report: Report) -> list[str]:
    """Return the baseline and the best other cells in the order of the table."""
    finished = report.cells[report.cells["n"] > 0]
    others = finished[~finished["baseline"]].nlargest(MAX_CELLS - 1, "miou")["cell"]
    selected = {*others, *finished["cell"][finished["baseline"]]}
    return [str(cell) for cell in finished["cell"] if cell in selected]


def _count_images(report: Report) -> dict[int, str]:
    """Count the images in which each class is labeled; empty without counts."""
    for cell in report.records.folders:
        for counts in report.records.counts(cell).values():
            return {index: str(n) for index, n in enumerate(np.count_nonzero(counts[:, :, 2], axis=0))}
    return {}
