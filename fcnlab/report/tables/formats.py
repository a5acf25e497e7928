"""Formats of a table: Markdown, HTML and terminal."""

from __future__ import annotations

import re

from rich.table import Column
from rich.table import Table as RichTable
from rich.text import Text

from fcnlab.console import break_headings, column_widths, create_table
from fcnlab.report.html.environment import render
from fcnlab.report.tables.table import Table

GAP = 2
"""Spaces between the columns in a terminal."""

MIN_NAME = 8
"""Width that each column of names gets in a narrow terminal before the columns of numbers are wrapped."""


def to_markdown(table: Table) -> str:
    """Format a table in Markdown, with the marks in bold.

    Args:
        table: table of texts.
    """
    align = ["---"] * table.text_columns + ["---:"] * (len(table.headings) - table.text_columns)
    lines = ["| " + " | ".join(map(_escape_markdown, table.headings)) + " |", "| " + " | ".join(align) + " |"]
    for index, row in enumerate(table.rows):
        texts = [_escape_markdown(text) for text in row]
        marked = (f"**{text}**" if (index, column) in table.marks else text for column, text in enumerate(texts))
        lines.append("| " + " | ".join(marked) + " |")
    return "\n".join(lines) + "\n"


def _escape_markdown(text: str) -> str:
    return re.sub(r"([\\|*])", r"\\\1", text)


def to_html(table: Table) -> str:
    """Format a table as HTML.

    Args:
        table: table of texts.
    """
    return render("table.html.j2", table=table)


def to_terminal(table: Table, title: str, width: int) -> RichTable:
    """Format a table for a terminal; the last columns are only named below it where they do not fit.

    Args:
        table: table of texts.
        title: title of the table.
        width: width of the terminal in characters.
    """
    always = table.text_columns + 3
    named = break_headings(table.headings[:always], [row[:always] for row in table.rows], width, GAP)
    headings = (*named, *table.headings[always:])
    widths = [size + GAP for size in column_widths(headings, table.rows)]
    count = len(headings)
    while count > always and sum(widths[:count]) > width:
        count -= 1
    numbers_fit = sum(widths[table.text_columns : count]) + MIN_NAME * table.text_columns <= width
    columns = [
        Column(heading, justify="right", no_wrap=numbers_fit) if index >= table.text_columns else Column(heading)
        for index, heading in enumerate(headings[:count])
    ]
    rest = table.headings[count:]
    shown = create_table(
        *columns,
        title=title,
        title_justify="left",
        title_style="bold",
        header_style="bold",
        box=None,
        padding=(0, GAP, 0, 0),
        caption=f"more columns in the report: {', '.join(rest)}" if rest else None,
        caption_justify="left",
    )
    for index, row in enumerate(table.rows):
        if index in table.group_starts:
            shown.add_row()
        shown.add_row(*(Text(text, "bold" if (index, n) in table.marks else "") for n, text in enumerate(row[:count])))
    return shown
