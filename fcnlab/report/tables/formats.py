"""A table in every format from one set of texts: Markdown, LaTeX, HTML, and a terminal's."""

from __future__ import annotations

import re
import unicodedata
from html import escape

from rich.table import Table as RichTable

from fcnlab.report.tables.cells import Table

GAP = 2
"""Spaces between the columns in a terminal."""


def to_markdown(table: Table) -> str:
    """A pipe table; the baseline's row is bold."""
    align = ["---"] * table.texts + ["---:"] * (len(table.headings) - table.texts)
    lines = ["| " + " | ".join(map(_escaped_markdown, table.headings)) + " |", "| " + " | ".join(align) + " |"]
    for index, row in enumerate(table.rows):
        cells = [_escaped_markdown(cell) for cell in row]
        lines.append("| " + " | ".join(f"**{c}**" if c and index == table.marked else c for c in cells) + " |")
    return "\n".join(lines) + "\n"


def _escaped_markdown(text: str) -> str:
    return re.sub(r"([\\|*])", r"\\\1", text)


def to_latex(table: Table, caption: str) -> str:
    """A table of the booktabs package, to be included in a paper as it stands."""
    align = "l" * table.texts + "r" * (len(table.headings) - table.texts)
    rows = [" & ".join(map(escaped_latex, row)) + " \\\\" for row in table.rows]
    for place in reversed(table.rules):
        rows.insert(place, "\\midrule")
    lines = [
        "% needs \\usepackage{booktabs}",
        "\\begin{table}",
        "\\centering",
        f"\\caption{{{escaped_latex(caption)}}}",
        f"\\begin{{tabular}}{{{align}}}",
        "\\toprule",
        " & ".join(map(escaped_latex, table.headings)) + " \\\\",
        "\\midrule",
        *rows,
        "\\bottomrule",
        "\\end{tabular}",
        "\\end{table}",
    ]
    return "\n".join(lines) + "\n"


_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "[": "{[}", "]": "{]}", "<": "$<$", ">": "$>$",
    "±": r"$\pm$", "Δ": r"$\Delta$", "–": "--", "—": "---", "×": r"$\times$", "≤": r"$\leq$", "≥": r"$\geq$",
    "µ": r"$\mu$", "μ": r"$\mu$", "→": r"$\rightarrow$", "−": "$-$", "*": "$^{*}$", "°": r"$^{\circ}$",
    "†": r"$^{\dagger}$", "’": "'", "“": "``", "”": "''", "…": r"\ldots{}",
}  # fmt: skip


def escaped_latex(text: str) -> str:
    """A text that TeX prints and does not take for commands; letters that it has no glyph for lose their marks."""
    return re.sub(r"(?<![\w.])-(?=\d)", "$-$", "".join(map(_latex_character, text)))


def _latex_character(character: str) -> str:
    if character in _LATEX:
        return _LATEX[character]
    if ord(character) < 0x180:  # what LaTeX's utf8 knows out of the box
        return character
    return unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode() or "?"


def to_html(table: Table) -> str:
    """A plain HTML table; the page's script sorts and filters it."""
    head = "".join(
        f'<th scope="col"{_class(index, table)}>{escape(text)}</th>' for index, text in enumerate(table.headings)
    )
    rows = []
    for place, row in enumerate(table.rows):
        kinds = [name for name, there in (("baseline", place == table.marked), ("rule", place in table.rules)) if there]
        cells = "".join(f"<td{_class(index, table)}>{escape(text)}</td>" for index, text in enumerate(row))
        rows.append(f'<tr class="{" ".join(kinds)}">{cells}</tr>' if kinds else f"<tr>{cells}</tr>")
    body = "\n".join(rows)
    return f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>\n"


def _class(index: int, table: Table) -> str:
    return ' class="number"' if index >= table.texts else ""


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
        if index in table.rules:
            shown.add_row()
        shown.add_row(*row[:shown_columns], style="dim" if index == table.marked else "")
    return shown


def _width(table: Table, columns: int) -> int:
    """How wide the first columns are, side by side."""
    widths = [max(map(len, column)) for column in zip(table.headings, *table.rows, strict=True)]
    return sum(widths[:columns]) + GAP * columns
