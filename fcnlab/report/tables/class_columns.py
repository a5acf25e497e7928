"""Columns of the metrics of single classes, whose values the frame of cells has only on request."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from fcnlab.errors import ConfigError, nearest
from fcnlab.metrics.summary import iou_to_dice
from fcnlab.report.report import Report
from fcnlab.report.tables.cells import View
from fcnlab.report.tables.classes import make_iou_frames
from fcnlab.report.tables.columns import ALL_CLASSES, find_column, split_class_column
from fcnlab.report.tables.names import number_repeated

MAX_LISTED = 30
"""Most classes that an error lists."""


def add_class_columns(report: Report, view: View) -> tuple[Report, View]:
    """Add the class columns of a view to the frame of cells of a report.

    The fields of such a column are the mean and the standard deviation of the class's metric over the seeds of a cell.
    They are NaN for a cell that was evaluated on other classes, and for a class without a labeled pixel.

    Args:
        report: report of a grid.
        view: columns and order; `iou:*` selects the IoU of every class.

    Returns:
        The report with these fields in `cells`, and the view with one column per class in place of `iou:*`. A column is
        listed once.

    Raises:
        ConfigError: the report has no such class; the message names the nearest. While no trial has finished, the
            classes are not known, and any name is accepted.
    """
    sort = view.sort.removeprefix("-")
    if not any(split_class_column(name)[0] for name in (*view.columns, sort)):
        return report, view
    iou = _collect_iou(report)
    classes = tuple(dict.fromkeys(str(name) for frame in iou.values() for name in frame))
    columns = tuple(dict.fromkeys(name for given in view.columns for name in _expand(given, classes)))
    for option, name in (*(("--columns", name) for name in columns), ("--sort", sort)):
        _check_class(option, name, classes, report.grid.name)
    fields: dict[str, list[float]] = {}
    for name in (*columns, sort):
        if split_class_column(name)[0]:
            values = [_find_values(name, iou.get(str(cell))) for cell in report.cells["cell"]]
            mean, std = find_column(name).fields
            fields |= {mean: [one.mean() for one in values], std: [one.std() for one in values]}
    cells = pd.concat([report.cells, pd.DataFrame(fields, index=report.cells.index)], axis=1)
    return replace(report, cells=cells), replace(view, columns=columns)


def _collect_iou(report: Report) -> dict[str, pd.DataFrame]:
    """Return the IoU of each cell with finished trials, with one row per seed and one column per name of a class."""
    by_cell = report.records.by_cell
    frames = make_iou_frames(report.records, list(by_cell))
    for cell, frame in frames.items():
        names = number_repeated(next(iter(by_cell[cell].values())).classes)
        frames[cell] = frame.set_axis(names[: frame.shape[1]], axis=1)
    return frames


def _expand(name: str, classes: Sequence[str]) -> Iterator[str]:
    """Yield the name of a column, or those of all classes."""
    metric, class_name = split_class_column(name)
    if class_name == ALL_CLASSES:
        yield from (f"{metric}:{one}" for one in classes)
    else:
        yield name


def _check_class(option: str, name: str, classes: Sequence[str], grid: str) -> None:
    metric, class_name = split_class_column(name)
    if metric and classes and class_name not in classes:
        raise ConfigError(
            f"{option} {name}: {grid} has no class '{class_name}'; {nearest(class_name, classes, MAX_LISTED)}"
        )


def _find_values(name: str, iou: pd.DataFrame | None) -> pd.Series[float]:
    """Return the values of a class column for the seeds of a cell; NaN for one without this class."""
    metric, class_name = split_class_column(name)
    if iou is None or class_name not in iou:
        return pd.Series([np.nan])
    return iou[class_name] if metric == "iou" else pd.Series(iou_to_dice(iou[class_name].to_numpy()))
