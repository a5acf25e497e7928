"""Tables of the page: texts with the values by which they are sorted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from fcnlab.report.report import Report
from fcnlab.report.tables.classes import collect_class_results, make_class_table
from fcnlab.report.tables.columns import COLUMNS, DECIMALS
from fcnlab.report.tables.table import Table


@dataclass(frozen=True)
class SortableTable:
    """A table with the values by which its rows are sorted.

    Attributes:
        table: the texts.
        keys: one key per row and column: a number as text, a text, or an empty text for a missing value.
        colors: color of the swatch of each row; empty for none.
        footer: texts of a last row that is not sorted; empty for none.
    """

    table: Table
    keys: tuple[tuple[str, ...], ...]
    colors: tuple[str, ...] = ()
    footer: tuple[str, ...] = ()


def make_sortable_cells(report: Report) -> SortableTable:
    """Return the table of cells.

    Args:
        report: report of a grid.
    """
    table, axes = report.cell_table, list(report.grid.axes)
    own = table.headings[: table.text_columns] == tuple(report.names.axes.values())  # else the cells have own names
    fields = [COLUMNS[name].fields[0] for name in table.columns]
    keys = tuple(
        (
            *((sort_key(row[axis]) for axis in axes) if own else texts[: table.text_columns]),
            *(sort_key(0.0 if name == "delta" and row["baseline"] else row[name]) for name in fields),
        )
        for (_, row), texts in zip(report.cells.iterrows(), table.rows, strict=True)
    )
    return SortableTable(table, keys)


def make_sortable_classes(report: Report, colors: Sequence[str]) -> SortableTable | None:
    """Return the table of the IoU of each class with a row of means, or None where no trial has finished.

    Args:
        report: report of a grid.
        colors: color of each class.
    """
    results = collect_class_results(report)
    if results is None:
        return None
    keys = tuple(
        (
            report.class_names[index],
            sort_key(results.images.get(index)),
            *(sort_key(frame[index].mean()) for frame in results.iou.values()),
        )
        for index in results.listed
    )
    by_cell = {str(row["cell"]): row for _, row in report.cells.iterrows()}
    means = [COLUMNS["miou"].text(by_cell[cell], DECIMALS) for cell in results.iou]
    return SortableTable(
        make_class_table(report, results),
        keys,
        tuple(colors[index] for index in results.listed),
        ("mean", "", *means),
    )


def sort_key(value: Any) -> str:
    """Return the text by which a value is sorted: the shortest exact number, or the text itself.

    Args:
        value: a number, a text or a missing value.

    Example:
        >>> sort_key(1e-05), sort_key(float("nan")), sort_key("fcn8s")
        ('1e-05', '', 'fcn8s')
    """
    if value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value)):
        return ""
    return repr(float(value)) if isinstance(value, float) else str(value)
