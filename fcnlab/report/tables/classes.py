"""How well each class is found, by cell."""

from __future__ import annotations

import numpy as np
import pandas as pd

from fcnlab.report.report import Report
from fcnlab.report.tables.cells import Table
from fcnlab.report.tables.columns import spread

MOST_CELLS = 12
"""Columns of cells: the baseline and the best of the others."""


def class_table(report: Report) -> Table | None:
    """IoU of each class, one column a cell; None where no trial has finished."""
    by_cell, checkpoint = report.records.by_cell, report.records.checkpoint
    shown = [cell for cell in _chosen(report) if cell in by_cell]
    if not shown:
        return None
    iou = {
        cell: pd.DataFrame(
            [
                metrics.class_iou
                for record in by_cell[cell].values()
                if (metrics := record.find_metrics(record.report_split, checkpoint))
            ]
        ).astype(float)
        for cell in shown
    }
    labelled = _labelled(report)
    rows = tuple(
        (
            name,
            labelled.get(place, ""),
            *(spread(iou[cell][place].mean(), iou[cell][place].std()) for cell in shown),
        )
        for place, name in enumerate(report.records.classes)
        if all(place in frame for frame in iou.values())
    )
    return Table(("class", "images", *shown), rows, 1, -1)


def _chosen(report: Report) -> list[str]:
    """The baseline and the best others with the same number of classes, in the order of the table."""
    scored = report.cells[report.cells["n"] > 0]
    others = scored[~scored["baseline"]].nlargest(MOST_CELLS - 1, "miou")["cell"]
    chosen = {*others, *scored["cell"][scored["baseline"]]}
    return [str(cell) for cell in scored["cell"] if cell in chosen]


def _labelled(report: Report) -> dict[int, str]:
    """In how many images each class is labelled, where there are counts."""
    for cell in report.records.folders:
        for counts in report.records.counts(cell).values():
            return {place: str(n) for place, n in enumerate(np.count_nonzero(counts[:, :, 2], axis=0))}
    return {}
