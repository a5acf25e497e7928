"""Export of the cells of a report as CSV and JSON with raw values; metrics are fractions of 1."""

from __future__ import annotations

import json
from typing import Any

import pandas as pd

from fcnlab.report.report import Report
from fcnlab.report.tables.cells import View
from fcnlab.report.tables.columns import COLUMNS


def select_cells(report: Report, view: View) -> pd.DataFrame:
    """Return the rows and columns of a view; all columns if the view selects none.

    Args:
        report: report of a grid.
        view: columns and order.

    Raises:
        ConfigError: there is no such column or axis.
    """
    cells = view.sort_cells(report.cells, report.grid.axes)
    if not view.columns:
        return cells
    fields = [field for name in view.columns for field in COLUMNS[name].fields]
    return cells[list(dict.fromkeys(["cell", *report.grid.axes, *fields, "baseline"]))]


def to_csv(report: Report, view: View) -> str:
    """Return the cells as comma-separated values with a heading.

    Args:
        report: report of a grid.
        view: columns and order.
    """
    return str(select_cells(report, view).to_csv(index=False, float_format="%.6g"))


def to_values(report: Report, view: View) -> dict[str, Any]:
    """Return the cells, their display names, the summary and the footnotes as values for JSON; a missing value is None.

    Args:
        report: report of a grid.
        view: columns and order.
    """
    return {
        "grid": report.grid.name,
        "question": report.grid.file.question,
        "baseline": report.grid.baseline.label,
        "display_names": dict(report.grid.display_names),
        "summary": report.summary_text,
        "footnotes": report.write_footnotes(view.columns or tuple(COLUMNS)),
        "cells": json.loads(select_cells(report, view).to_json(orient="records", double_precision=10)),
    }
