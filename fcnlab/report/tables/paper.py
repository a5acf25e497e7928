"""The table of a report in LaTeX, with the columns that fit the paper."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

import pandas as pd

from fcnlab.report.footnotes.metrics import describe_class_sets
from fcnlab.report.footnotes.write import write_short_notes
from fcnlab.report.report import Report
from fcnlab.report.tables.cells import View
from fcnlab.report.tables.columns import default_columns, make_heading
from fcnlab.report.tables.effects import describe_effects, make_effects_table
from fcnlab.report.tables.latex import Layout, find_layout, to_latex
from fcnlab.report.tables.table import Table

CHOICES = (("miou", "delta", "pixel_acc"), ("miou", "delta"), ("miou", "delta_mean", "pixel_acc"),
           ("miou", "delta_mean"), ("miou", "pixel_acc"), ("miou",))  # fmt: skip
"""Columns of a table that fits a column of the paper, from the most to the fewest."""

MAX_ROWS = 45
"""Rows of a table that fit a page of A4 with caption and note."""

SHORT = {"delta": "Δ [95 %]", "delta_mean": "Δ", "images_per_s": "im./s", "peak_memory": "mem. GB",
         "device_hours": "dev.-h"}  # fmt: skip
"""Headings that are shorter than the default ones of `columns.COLUMNS`."""


def report_to_latex(report: Report, view: View | None = None, *, wide: bool = False) -> str:
    """Format the table of a report in LaTeX.

    Without columns in the view, those are chosen that fit a column of a two-column paper; with `wide`, the table has
    all default columns and the width of the page. The full footnotes are a comment above the table.

    Args:
        report: report of a grid.
        view: columns and order; None for the default ones.
        wide: whether the table takes the full width of the page.

    Raises:
        ConfigError: there is no such column or axis; the message names the nearest.
    """
    view = view or View()
    table, layout, wide = _choose(report, view, wide)
    columns = set(table.columns)
    comments = [report.grid.file.question, *report.write_footnotes_of(table)]
    left_out = [make_heading(name, report.names) for name in default_columns(report.cells) if name not in columns]
    if left_out and not view.columns and not view.pivot:
        room = "the page" if wide else "a column; --wide has all"
        comments.append(f"Left out, since the table would be wider than {room}: {', '.join(left_out)}.")
    if layout is None:
        comments.append("The table is wider than the page: choose fewer columns with --columns.")
    if len(table.rows) > MAX_ROWS:
        comments.append(
            f"The table has {len(table.rows)} rows and may be taller than a page: split it, or put one axis into the "
            "columns with --pivot."
        )
    return to_latex(
        table,
        report.caption,
        label=_make_label(report),
        comments=comments,
        notes=[
            *write_short_notes(report, table, columns),
            *(describe_class_sets(report) if "miou" in columns else ()),
        ],
        wide=wide,
        layout=layout,
    )


def effects_to_latex(report: Report) -> str:
    """Format the table of the effects of the axes in LaTeX.

    Args:
        report: report of a grid with effects.
    """
    table = make_effects_table(report.axis_effects, report.names)
    sizes = ((wide, wrap) for wide in (False, True) for wrap in (False, True))
    fitting = ((wide, find_layout(table, wide=wide, wrap=wrap)) for wide, wrap in sizes)
    wide, layout = next(((wide, layout) for wide, layout in fitting if layout is not None), (True, None))
    return to_latex(
        table,
        f"Effects of the axes: {report.caption}",
        label=f"{_make_label(report)}-effects",
        comments=[report.grid.file.question],
        notes=describe_effects(report.axis_effects),
        wide=wide,
        layout=layout,
    )


def _make_label(report: Report) -> str:
    return "tab:" + re.sub(r"[^\w./-]", "-", report.grid.name, flags=re.ASCII)


def _choose(report: Report, view: View, wide: bool) -> tuple[Table, Layout | None, bool]:
    """Return the table, its layout, and whether it takes the full width of the page."""
    first = None
    for columns, broad, wrap, dense in _attempts(report.cells, view, wide):
        table = _make_table(report, replace(view, columns=columns))
        layout = find_layout(table, wide=broad, wrap=wrap, dense=dense)
        if layout is not None:
            return table, layout, broad
        first = first or table
    assert first is not None, "there is an attempt"
    return first, None, True


def _attempts(cells: pd.DataFrame, view: View, wide: bool) -> Iterator[tuple[tuple[str, ...], bool, bool, bool]]:
    """Yield columns, whether the table takes the full width, whether names may be broken, and whether it is dense.

    The best choice comes first.
    """
    everything = view.columns or (() if view.pivot else default_columns(cells))
    incomplete = ("n",) if (cells["n"] < cells["planned"]).any() else ()
    choices = [choice for choice in CHOICES if len(cells) > 1 or {"delta", "delta_mean"}.isdisjoint(choice)]
    narrow = [everything] if view.columns or view.pivot else [(*incomplete, *columns) for columns in choices]
    if not wide:
        yield from ((columns, False, wrap, False) for wrap in (False, True) for columns in narrow)
    yield from ((everything, True, wrap, False) for wrap in (False, True))
    if view.columns or view.pivot:
        yield from ((everything, True, wrap, True) for wrap in (False, True))
    else:
        yield from ((everything[:count], True, True, False) for count in range(len(everything) - 1, 0, -1))


def _make_table(report: Report, view: View) -> Table:
    """Return the table with short headings."""
    table = view.make_table(report.cells, report.names)
    if view.pivot is not None:
        return table
    own = report.names
    numbers = [
        SHORT[name] if name in SHORT and name not in own.columns else make_heading(name, own) for name in table.columns
    ]
    return replace(table, headings=(*table.headings[: table.text_columns], *numbers))
