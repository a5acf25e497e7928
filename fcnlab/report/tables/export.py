"""Texts of the table of a report, and its cells as CSV and JSON with raw values; metrics are fractions of 1."""

from __future__ import annotations

import json
from collections.abc import Sequence
from io import StringIO
from typing import Any, Literal, get_args

import pandas as pd
from rich.console import Console

from fcnlab.console import UNLIMITED
from fcnlab.errors import ConfigError, nearest
from fcnlab.report.report import Report
from fcnlab.report.tables.cells import View
from fcnlab.report.tables.columns import COLUMNS, find_column
from fcnlab.report.tables.csv_text import to_csv_text
from fcnlab.report.tables.formats import to_html, to_markdown, to_terminal
from fcnlab.report.tables.markdown_text import escape_markdown_lines
from fcnlab.report.tables.paper import report_to_latex
from fcnlab.report.tables.table import Table

TextFormat = Literal["text", "csv", "markdown", "latex", "html", "json"]


def format_report(report: Report, view: View, text_format: TextFormat, *, wide: bool = False) -> str:
    """Format the table of a report as text.

    Args:
        report: report of a grid.
        view: columns and order.
        text_format: `text` is the table of a terminal; `csv` and `json` contain the cells with raw values.
        wide: whether a LaTeX table takes the full width of the page.

    Raises:
        ConfigError: there is no such column, axis or format.
    """
    if text_format == "csv":
        return to_csv(report, view)
    if text_format == "json":
        return json.dumps(to_values(report, view), indent=1)
    if text_format == "latex":
        return report_to_latex(report, view, wide=wide)
    table = view.make_table(report.cells, report.names)
    if text_format == "markdown":
        return to_markdown_with_footnotes(report, table)
    if text_format == "html":
        return to_html(table)
    if text_format != "text":
        raise ConfigError(f"format: there is no '{text_format}'; {nearest(text_format, get_args(TextFormat))}")
    console = Console(file=StringIO(), width=UNLIMITED, color_system=None, markup=False, highlight=False)
    with console.capture() as captured:
        console.print(to_terminal(table, report.grid.file.question, console.width))
    return "".join(f"{line.rstrip()}\n" for line in captured.get().splitlines())


def to_markdown_with_footnotes(report: Report, table: Table) -> str:
    """Format a table in Markdown with the footnotes that explain its markers below it.

    Args:
        report: report of a grid.
        table: table of its cells.
    """
    *footnotes, last = map(escape_markdown_lines, report.write_footnotes_of(table))
    return "\n".join([to_markdown(table), *(f"{line}\\" for line in footnotes), last, ""])


def select_cells(report: Report, view: View) -> pd.DataFrame:
    """Return the rows and columns of a view; all columns if the view selects none.

    Args:
        report: report of a grid.
        view: columns and order.

    Raises:
        ConfigError: there is no such column or axis.
    """
    view.check_columns(report.cells)
    cells = view.sort_cells(report.cells, report.grid.axes)
    if not view.columns:
        return cells
    fields = [field for name in view.columns for field in find_column(name).fields]
    return cells[list(dict.fromkeys(["cell", *report.grid.axes, *fields, "baseline"]))]


def to_csv(report: Report, view: View) -> str:
    """Return the cells as comma-separated values with a heading.

    Args:
        report: report of a grid.
        view: columns and order.
    """
    return to_csv_text(select_cells(report, view))


def merge_cells(shown: Sequence[tuple[Report, View]]) -> pd.DataFrame:
    """Return the cells of several grids in one frame, below each other, with the column `grid` before the others.

    Args:
        shown: reports of the grids with columns and order; of a grid that is given twice, the first is used. Columns of
            axes are empty in the rows of other grids.

    Raises:
        ConfigError: there is no such column or axis.
    """
    frames: dict[str, pd.DataFrame] = {}
    for report, view in shown:
        cells = select_cells(report, view)
        cells.insert(0, "grid", report.grid.name)
        frames.setdefault(report.grid.name, cells)
    return pd.concat(frames.values(), ignore_index=True)


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
        "footnotes": report.write_footnotes(view.columns or _list_columns(report)),
        "effects": json.loads(report.effects.to_json(orient="records", double_precision=10)),
        "cells": json.loads(select_cells(report, view).to_json(orient="records", double_precision=10)),
    }


def _list_columns(report: Report) -> list[str]:
    """Return the names of the columns of which the frame of cells has the fields."""
    return [name for name, column in COLUMNS.items() if column.fields[0] in report.cells]
