"""The ablation table as a person reads it, in every format from one set of texts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
from rich.table import Table as RichTable

NOTHING = "–"
GAP = 2
"""Spaces between the columns in a terminal."""


@dataclass(frozen=True)
class Table:
    """Column headings and rows of texts; `marked` is the row of the baseline, `texts` how many columns are names."""

    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    texts: int
    marked: int


def cell_table(cells: pd.DataFrame, axes: Sequence[str]) -> Table:
    """The table of a grid: one row a cell, percentages with one decimal, the baseline marked."""
    names = list(axes) or ["cell"]
    headings = (*names, "n", "mIoU %", "Δ mIoU", "acc. %", "params M", "GMACs", "train s")
    rows = tuple(_row(row, names) for _, row in cells.iterrows())
    return Table(headings, rows, len(names), int(cells["baseline"].to_numpy().argmax()))


def _row(row: pd.Series, names: Sequence[str]) -> tuple[str, ...]:
    n = f"{row['n']}" if row["n"] == row["planned"] else f"{row['n']} of {row['planned']}"
    n += f", {row['failed']} failed" if row["failed"] else ""
    delta = "baseline" if row["baseline"] else spread(row["delta"], row["delta_std"], sign=True)
    return (
        *(str(row[name]) for name in names),
        n,
        spread(row["miou"], row["miou_std"]),
        delta,
        spread(row["pixel_acc"], row["pixel_acc_std"]),
        number(row["params"] / 1e6, 2),
        number(row["gmacs"], 2),
        number(row["train_seconds"], 0),
    )


def spread(mean: float, std: float, *, sign: bool = False) -> str:
    """Mean ± standard deviation of fractions, in percent; without ± where there is one seed."""
    if math.isnan(mean):
        return NOTHING
    text = f"{100 * mean:+.1f}" if sign else f"{100 * mean:.1f}"
    return text if math.isnan(std) else f"{text} ± {100 * std:.1f}"


def number(value: float, digits: int) -> str:
    """A number with this many digits after the point, or a dash where there is none."""
    return NOTHING if math.isnan(value) else f"{value:,.{digits}f}"


def to_markdown(table: Table) -> str:
    """A pipe table; the baseline's row is bold."""
    align = ["---"] * table.texts + ["---:"] * (len(table.headings) - table.texts)
    lines = ["| " + " | ".join(table.headings) + " |", "| " + " | ".join(align) + " |"]
    for index, row in enumerate(table.rows):
        cells = [_escaped_markdown(cell) for cell in row]
        lines.append("| " + " | ".join(f"**{c}**" if index == table.marked else c for c in cells) + " |")
    return "\n".join(lines) + "\n"


def _escaped_markdown(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|")


def to_latex(table: Table, caption: str) -> str:
    """A table of the booktabs package, to be included in a paper as it stands."""
    align = "l" * table.texts + "r" * (len(table.headings) - table.texts)
    lines = [
        "% needs \\usepackage{booktabs}",
        "\\begin{table}",
        "\\centering",
        f"\\caption{{{_escaped_latex(caption)}}}",
        f"\\begin{{tabular}}{{{align}}}",
        "\\toprule",
        " & ".join(map(_escaped_latex, table.headings)) + " \\\\",
        "\\midrule",
        *(" & ".join(map(_escaped_latex, row)) + " \\\\" for row in table.rows),
        "\\bottomrule",
        "\\end{tabular}",
        "\\end{table}",
    ]
    return "\n".join(lines) + "\n"


_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "Δ": r"$\Delta$", "–": "--", "×": r"$\times$",
}  # fmt: skip


def _escaped_latex(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in text)


def to_terminal(table: Table, title: str, width: int) -> RichTable:
    """The table for a terminal of `width` columns; costs that do not fit are named below it instead of squeezed."""
    shown_columns = len(table.headings)
    while shown_columns > table.texts + 3 and _width(table, shown_columns) > width:
        shown_columns -= 1
    rest = table.headings[shown_columns:]
    shown = RichTable(
        title=title,
        title_justify="left",
        title_style="bold",
        header_style="bold",
        box=None,
        padding=(0, GAP, 0, 0),
        caption=f"in the report also: {', '.join(rest)}" if rest else None,
        caption_justify="left",
    )
    for index, heading in enumerate(table.headings[:shown_columns]):
        shown.add_column(heading, justify="left" if index < table.texts else "right", no_wrap=index >= table.texts)
    for index, row in enumerate(table.rows):
        shown.add_row(*row[:shown_columns], style="dim" if index == table.marked else "")
    return shown


def _width(table: Table, columns: int) -> int:
    """How wide the first columns are, side by side."""
    widths = [max(map(len, column)) for column in zip(table.headings, *table.rows, strict=True)]
    return sum(widths[:columns]) + GAP * columns
