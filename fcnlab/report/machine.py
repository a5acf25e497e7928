"""Tables for programs: raw values, figures as fractions of 1, in the order and with the columns that were asked for."""

from __future__ import annotations

import json
from typing import Any

import pandas as pd

from fcnlab.report.report import Report
from fcnlab.report.tables.cells import View
from fcnlab.report.tables.columns import COLUMNS


def chosen(report: Report, view: View) -> pd.DataFrame:
    """The rows and columns of a view; without a choice all columns.

    Raises:
        ConfigError: there is no such column or axis.
    """
    cells = view.ordered(report.cells, report.grid.axes)
    if not view.columns:
        return cells
    fields = [field for name in view.columns for field in COLUMNS[name].fields]
    return cells[list(dict.fromkeys(["cell", *report.grid.axes, *fields, "baseline"]))]


def to_csv(report: Report, view: View) -> str:
    """Comma-separated values, with a heading."""
    return str(chosen(report, view).to_csv(index=False, float_format="%.6g"))


def as_values(report: Report, view: View) -> dict[str, Any]:
    """The cells with what is said of them, as JSON takes it; what is not there is null."""
    rows = json.loads(chosen(report, view).to_json(orient="records", double_precision=10))
    said = {"grid": report.grid.name, "question": report.grid.file.question, "baseline": report.grid.baseline.label}
    return {**said, "summary": report.summary_text, "footnotes": report.footnotes, "cells": rows}
