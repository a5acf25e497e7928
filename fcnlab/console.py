"""The terminal to which the command line and the progress reports write."""

from __future__ import annotations

import io
import os
import re
import sys
from collections.abc import Collection, Sequence
from typing import IO, TYPE_CHECKING, Any, Literal, TextIO, cast

from fcnlab.redaction import escape_control_characters

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

GAP = 2
"""Spaces after each column of a table."""

KEPT = 24
"""Width up to which names are not broken to make space for optional columns."""

UNLIMITED = 100_000
"""Width in characters of an output that is not a terminal: files and logs have no right margin."""


def create_console(*, stderr: bool = False) -> Console:
    """Create a console for standard output or standard error.

    The width is that of the terminal. An output that is not a terminal has no limit, unless COLUMNS is set. FORCE_COLOR
    colors it and does not make it a terminal: no table is replaced in place.

    Args:
        stderr: whether to write to standard error.

    Returns:
        A console without markup and highlighting: brackets in the user's names and questions are plain text. It prints
        nothing if the process has been started without that output.
    """
    from rich.console import Console

    stream = (sys.stderr if stderr else sys.stdout) or cast(TextIO, _NullStream())
    replace_unencodable(stream)
    console = Console(markup=False, highlight=False, stderr=stderr)
    if stream.isatty() or console.is_jupyter:
        return console
    colors = cast("Literal['standard', '256', 'truecolor', 'windows'] | None", console.color_system)
    output = cast(IO[str], _TrimmedStream(stream))
    console = Console(file=output, color_system=colors, force_terminal=False, markup=False, highlight=False)
    if not os.environ.get("COLUMNS", "").isdecimal():
        console.width = UNLIMITED
    return console


class _NullStream(io.TextIOBase):
    """A stream that discards its output, for a process that has been started without one."""

    def write(self, text: str) -> int:
        return len(text)


class _TrimmedStream:
    """A stream that leaves out the spaces at the end of lines, with which rich fills the last column of a table.

    Without a limit of the width, each row would be as long as the longest description.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        self._stream.write(re.sub(" +(?=\n)", "", text))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def format_table(
    headings: Sequence[str],
    rows: Sequence[Sequence[str]],
    width: int,
    *,
    numbers: Collection[int] = (),
    optional: Sequence[int] = (),
    bold: Collection[tuple[int, int]] = (),
    group_starts: Collection[int] = (),
    title: str = "",
) -> RenderableType:
    """Format a table that fits a terminal: optional columns are left out, and texts are broken between words.

    Args:
        headings: heading of each column.
        rows: text of each column, for each row.
        width: width of the output in characters.
        numbers: indices of columns that are aligned right, and not broken unless their texts are long.
        optional: indices of columns that are left out if the others need their space, the first of them first; they are
            named below the table.
        bold: indices of row and column of the texts in bold.
        group_starts: indices of rows with an empty line above.
        title: title of the table.

    Returns:
        The table below its title and above the names of the columns that are left out.
    """
    from rich.console import Group
    from rich.table import Column, Table
    from rich.text import Text

    headings, title = [*map(escape_control_characters, headings)], escape_control_characters(title)
    rows = [[*map(escape_control_characters, row)] for row in rows]
    shown, left_out = list(range(len(headings))), list(optional)
    whole = {column for column in numbers if all(len(row[column]) <= KEPT for row in rows)}
    while left_out and _least_width(shown, headings, rows, whole) > width:
        shown.remove(left_out.pop(0))
    omitted = [headings[column] for column in range(len(headings)) if column not in shown]
    columns = [[headings[column], *(row[column] for row in rows)] for column in shown]
    widths = _share_width(columns, [column in whole for column in shown], width)
    broken = [[break_text(text, most) for text in column] for column, most in zip(columns, widths, strict=True)]
    table = Table(
        *(
            Column(texts[0], justify="right" if column in numbers else "left", overflow="fold")
            for column, texts in zip(shown, broken, strict=True)
        ),
        header_style="bold",
        box=None,
        padding=(0, GAP, 0, 0),
        pad_edge=False,
    )
    for index in range(len(rows)):
        if index in group_starts:
            table.add_row()
        texts = (column[index + 1] for column in broken)
        table.add_row(*(Text(t, "bold" if (index, n) in bold else "") for n, t in zip(shown, texts, strict=True)))
    # Not `title` and `caption` of the table, which rich wraps to the width of the table.
    above = [Text(title, "bold")] if title else []
    below = [Text(f"more columns: {', '.join(omitted)}", "italic dim")] if omitted else []
    return Group(*above, table, *below)


def format_count(number: int, noun: str) -> str:
    """Return a number with its noun, which is plural unless the number is one.

    Args:
        number: any number.
        noun: singular of a noun whose plural ends in an additional s.

    >>> format_count(1, "trial"), format_count(12, "trial")
    ('1 trial', '12 trials')
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def format_bytes(count: float) -> str:
    """Format a number of bytes in GB, or in MB below 0.1 GB.

    Args:
        count: the number of bytes.

    >>> format_bytes(2.61e9), format_bytes(4.2e6)
    ('2.6 GB', '4.2 MB')
    """
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"


def format_size(size: tuple[int, int]) -> str:
    """Format a height and a width in pixels.

    Args:
        size: height and width.

    >>> format_size((320, 480))
    '320x480'
    """
    return f"{size[0]}x{size[1]}"


def break_text(text: str, width: int) -> str:
    """Break the lines of a text that are longer than a width after spaces and after the separators of names.

    Args:
        text: any text.
        width: most characters of a line, unless a word is longer.

    >>> break_text("timm:resnet18.tv_in1k", 14).split()
    ['timm:resnet18.', 'tv_in1k']
    """
    from rich.cells import cell_len

    lines = []
    for line in text.split("\n"):
        lines.append("")
        for piece in split_pieces(line):
            if lines[-1] and cell_len((lines[-1] + piece).rstrip()) > width:
                lines.append("")
            lines[-1] += piece
    return "\n".join(line.rstrip() for line in lines)


def split_pieces(text: str) -> list[str]:
    """Split a text at the places where a line may be broken: after spaces and the separators of names.

    Args:
        text: any text.

    >>> split_pieces("timm:resnet18.tv_in1k")
    ['timm:', 'resnet18.', 'tv_', 'in1k']
    """
    return _BREAKS.split(text)


_BREAKS = re.compile(r"(?<=\s)(?=\S)|(?<=[_:/])(?=\w)|(?<=\w[.,+-])(?=[^\W\d])")
"""Places where a line may be broken; a number is kept together."""


def _least_width(
    shown: Sequence[int], headings: Sequence[str], rows: Sequence[Sequence[str]], numbers: Collection[int]
) -> int:
    """Return the width that a table needs without breaking a word or a number.

    Names are not broken for the sake of optional columns, so a column of short texts counts in full.
    """
    columns = [[headings[column], *(row[column] for row in rows)] for column in shown]
    wanted = [_least(column, index in numbers, keep=KEPT) for index, column in zip(shown, columns, strict=True)]
    return sum(wanted) + GAP * (len(shown) - 1)


def _least(texts: Sequence[str], is_number: bool, keep: int = 0) -> int:
    """Return the least width of a column: its longest word, or its longest text up to `keep` characters."""
    from rich.cells import cell_len

    heading, *rest = texts
    pieces = [piece.rstrip() for text in [heading, *([] if is_number else rest)] for piece in split_pieces(text)]
    whole = max((cell_len(line) for text in rest for line in text.split("\n")), default=0)
    return max([*map(cell_len, pieces), whole if is_number else min(whole, keep)])


def _share_width(columns: Sequence[Sequence[str]], are_numbers: Sequence[bool], width: int) -> list[int]:
    """Return the width of each column; the widest ones become narrower until the table fits."""
    whole = column_widths(
        [column[0] for column in columns], list(zip(*(column[1:] for column in columns), strict=True))
    )
    least = [_least(column, number) for column, number in zip(columns, are_numbers, strict=True)]
    room = width - GAP * (len(columns) - 1)
    if sum(whole) > room:  # headings of numbers are broken before names
        whole = [low if number else full for full, low, number in zip(whole, least, are_numbers, strict=True)]
    most = max(whole, default=0)
    while sum(_limit(whole, least, most)) > room and most > 0:
        most -= 1
    return _limit(whole, least, most)


def _limit(whole: Sequence[int], least: Sequence[int], most: int) -> list[int]:
    return [max(low, min(full, most)) for full, low in zip(whole, least, strict=True)]


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
