"""The terminal to which the command line and the progress reports write."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Column, Table

UNLIMITED = 100_000
"""Width in characters of an output that is not a terminal: files and logs have no right margin."""


def create_console(*, stderr: bool = False) -> Console:
    """Create a console for standard output or standard error.

    The width is that of the terminal. An output that is not a terminal has no limit, unless COLUMNS is set.

    Args:
        stderr: whether to write to standard error.

    Returns:
        A console without markup and highlighting: brackets in the user's names and questions are plain text.
    """
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    replace_unencodable(stream)
    console = Console(markup=False, highlight=False, stderr=stderr)
    if not (stream.isatty() or console.is_jupyter or os.environ.get("COLUMNS", "").isdecimal()):
        console.width = UNLIMITED
    return console


def create_table(*headings: str | Column, **options: Any) -> Table:
    """Create a table that breaks long words over several lines where it does not fit; no text is cut off.

    Args:
        headings: heading of each column, or a column of rich.
        options: options of `rich.table.Table`.
    """
    from rich.table import Column, Table

    columns = [Column(heading) if isinstance(heading, str) else heading for heading in headings]
    table = Table(*columns, **options)
    for column in table.columns:
        column.overflow = "fold"
    return table


def break_headings(headings: Sequence[str], rows: Sequence[Sequence[str]], width: int, gap: int) -> tuple[str, ...]:
    """Break headings such as recipe.loss.dice after their dots if a table is too wide with each on one line.

    Args:
        headings: heading of each column.
        rows: text of each column, for each row.
        width: width of the output in characters.
        gap: width of the space after each column.

    Returns:
        The headings, with line breaks if they are needed.
    """
    total = sum(width_ + gap for width_ in column_widths(headings, rows))
    return tuple(heading.replace(".", ".\n") if total > width else heading for heading in headings)


def column_widths(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> list[int]:
    """Return the width of each column in characters of a terminal, where some characters take the space of two.

    Args:
        headings: heading of each column.
        rows: text of each column, for each row.
    """
    from rich.cells import cell_len

    return [
        max(cell_len(line) for text in column for line in text.split("\n"))
        for column in zip(headings, *rows, strict=True)
    ]


def replace_unencodable(stream: TextIO) -> None:
    """Let a stream write a question mark for each character that its encoding lacks, instead of raising an error.

    Args:
        stream: standard output or standard error.
    """
    if not isinstance(stream, io.TextIOWrapper):
        return
    raises = ("strict",) if stream.encoding.lower().startswith("utf") else ("strict", "surrogateescape")
    if stream.errors in raises:
        stream.reconfigure(errors="replace")
