"""Columns of single classes and of means over images, whose values the frame of cells has only on request."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from fcnlab.errors import ConfigError, nearest
from fcnlab.metrics.summary import compute_image_metrics, iou_to_dice
from fcnlab.report.report import Report
from fcnlab.report.tables.cells import View
from fcnlab.report.tables.classes import make_iou_frames
from fcnlab.report.tables.columns import ALL_CLASSES, find_column, is_per_image, split_class_column
from fcnlab.report.tables.names import number_repeated
from fcnlab.report.trial_records import find_missing_counts

MAX_LISTED = 30
"""Most classes that an error lists."""


def add_requested_columns(report: Report, view: View) -> tuple[Report, View]:
    """Add the columns of single classes and of means over images in a view to the frame of cells of a report.

    The fields of such a column are the mean and the standard deviation of the metric over the seeds of a cell. They are
    NaN for a cell that was evaluated on other classes, and for a class without a labeled pixel. Means over images are
    computed from the counts, and are NaN for a cell that lacks those of a finished trial.

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
    if not any(map(_is_requested, (*view.columns, sort))):
        return report, view
    iou = _collect_iou(report)
    per_image = _collect_image_metrics(report) if any(map(is_per_image, (*view.columns, sort))) else {}
    classes = tuple(dict.fromkeys(str(name) for frame in iou.values() for name in frame))
    columns = tuple(dict.fromkeys(name for given in view.columns for name in _expand(given, classes)))
    for option, name in (*(("--columns", name) for name in columns), ("--sort", sort)):
        _check_class(option, name, classes, report.grid.name)
    fields: dict[str, list[float]] = {}
    for name in (*columns, sort):
        if _is_requested(name):
            found = per_image if is_per_image(name) else iou
            values = [_find_values(name, found.get(str(cell))) for cell in report.cells["cell"]]
            mean, std = find_column(name).fields
            fields |= {mean: [one.mean() for one in values], std: [one.std() for one in values]}
    cells = pd.concat([report.cells, pd.DataFrame(fields, index=report.cells.index)], axis=1)
    return replace(report, cells=cells), replace(view, columns=columns)


def _is_requested(name: str) -> bool:
    return is_per_image(name) or bool(split_class_column(name)[0])


def _collect_iou(report: Report) -> dict[str, pd.DataFrame]:
    """Return the IoU of each cell with finished trials, with one row per seed and one column per name of a class."""
    frames = make_iou_frames(report.records, list(report.records.by_cell))
    for cell, frame in frames.items():
        frames[cell] = frame.set_axis(_list_classes(report, cell)[: frame.shape[1]], axis=1)
    return frames


def _collect_image_metrics(report: Report) -> dict[str, pd.DataFrame]:
    """Return the means over images of each cell with all counts, with one row per seed and one column per column."""
    missing = find_missing_counts(report.cells, report.records)
    frames = {}
    for cell in report.records.by_cell.keys() - missing.keys():
        names, rows = _list_classes(report, cell), []
        for counts in report.records.counts(cell).values():
            one = compute_image_metrics(counts)
            row = {"image_miou": one.miou, "image_dice": one.dice}
            row |= {f"image_iou:{name}": iou for name, iou in zip(names, one.class_iou, strict=True)}
            row |= {f"image_dice:{name}": dice for name, dice in zip(names, one.class_dice, strict=True)}
            rows.append(row)
        frames[cell] = pd.DataFrame(rows)
    return frames


def _list_classes(report: Report, cell: str) -> list[str]:
    return number_repeated(next(iter(report.records.by_cell[cell].values())).classes)


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


def _find_values(name: str, found: pd.DataFrame | None) -> pd.Series[float]:
    """Return the values of a column for the seeds of a cell; NaN for one without this class or without counts."""
    metric, class_name = split_class_column(name)
    key = name if is_per_image(name) else class_name
    if found is None or key not in found:
        return pd.Series([np.nan])
    return pd.Series(iou_to_dice(found[key].to_numpy())) if metric == "dice" else found[key]
