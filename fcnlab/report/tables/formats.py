"""Formats of a table: Markdown, HTML and terminal."""

from __future__ import annotations

from rich.console import RenderableType

from fcnlab.console import format_table
from fcnlab.report.html.environment import render
from fcnlab.report.tables.markdown_text import escape_markdown
from fcnlab.report.tables.table import Table

ESSENTIAL = ("miou", "delta")
"""Columns that a narrow terminal shows before any other."""


def to_markdown(table: Table) -> str:
    """Format a table in Markdown, with the marks in bold.

    Args:
        table: table of texts.
    """
    align = ["---"] * table.text_columns + ["---:"] * (len(table.headings) - table.text_columns)
    lines = ["| " + " | ".join(map(escape_markdown, table.headings)) + " |", "| " + " | ".join(align) + " |"]
    for index, row in enumerate(table.rows):
        texts = [escape_markdown(text) for text in row]
        marked = (f"**{text}**" if (index, column) in table.marks else text for column, text in enumerate(texts))
        lines.append("| " + " | ".join(marked) + " |")
    return "\n".join(lines) + "\n"


def to_html(table: Table) -> str:
    """Format a table as HTML.

    Args:
        table: table of texts.
    """
    return render("table.html.j2", table=table)


def to_terminal(table: Table, title: str, width: int) -> RenderableType:
    """Format a table for a terminal; the last columns are only named below it where they do not fit.

    Args:
        table: table of texts.
        title: title of the table.
        width: width of the terminal in characters.
    """
    first, count = table.text_columns, len(table.headings)
    essential = [table.columns.index(name) for name in ESSENTIAL if name in table.columns]
    kept = {first + index for index in essential} or {first, first + 1, first + 2}
    optional = [column for column in reversed(range(first, count)) if column not in kept]
    return format_table(
        table.headings,
        table.rows,
        width,
        numbers=range(first, count),
        optional=[*optional, *sorted(kept, reverse=True)[:-1]],
        bold=table.marks,
        group_starts=table.group_starts,
        title=title,
    )
