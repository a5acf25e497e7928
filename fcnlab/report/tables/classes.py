"""Table of the IoU of each class, with one column per cell that was evaluated on the same images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from fcnlab.report.dataset_groups import count_images
from fcnlab.report.report import Report
from fcnlab.report.tables.columns import format_mean_std
from fcnlab.report.tables.table import Table
from fcnlab.report.trial_records import TrialRecords

MAX_CELLS = 12
"""Most columns of cells: the baseline and the best of the others."""


@dataclass(frozen=True)
class ClassResults:
    """IoU of each class of the cells in the table.

    Attributes:
        iou: cell label -> IoU as fractions of 1, with one row per seed and one column per class.
        images: class -> number of images in which it is labeled; empty without counts.
        listed: the classes in the table, as labels.
    """

    iou: dict[str, pd.DataFrame]
    images: dict[int, int]
    listed: tuple[int, ...]


def collect_class_results(report: Report) -> ClassResults | None:
    """Return the IoU of each class of the baseline and the best other cells, or None where no trial has finished.

    Args:
        report: report of a grid.
    """
    iou = make_iou_frames(report.records, report.select_cells(MAX_CELLS))
    if not iou:
        return None
    listed = tuple(index for index in range(len(report.classes)) if all(index in frame for frame in iou.values()))
    return ClassResults(iou, count_images(report.groups[0], report.records), listed)


def make_class_table(report: Report, results: ClassResults) -> Table:
    """Return the table of the IoU of each class.

    Args:
        report: report of a grid.
        results: result of `collect_class_results`.
    """
    rows = tuple(
        (
            report.class_names[index],
            str(results.images.get(index, "")),
            *(format_mean_std(frame[index].mean(), frame[index].std()) for frame in results.iou.values()),
        )
        for index in results.listed
    )
    return Table(("class", "images", *map(report.grid.display_name, results.iou)), rows, 1)


def make_iou_frames(records: TrialRecords, cells: Sequence[str]) -> dict[str, pd.DataFrame]:
    """Return the IoU of each class on the reported split for each cell.

    Args:
        records: records of the finished trials.
        cells: labels of cells with finished trials.

    Returns:
        Label of a cell -> IoU as fractions of 1, with one row per seed and one column per class.
    """
    by_cell, checkpoint = records.by_cell, records.checkpoint
    by_trial = {
        cell: [one.find_metrics(one.report_split, checkpoint) for one in by_cell[cell].values()] for cell in cells
    }
    return {
        cell: pd.DataFrame([one.class_iou for one in metrics if one is not None]).astype(float)
        for cell, metrics in by_trial.items()
    }
