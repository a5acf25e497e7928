"""Tables in LaTeX with booktabs: the size of the font and the widths of the columns are chosen to fit the paper."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from fcnlab.report.tables.latex_text import (
    BOLD,
    escape_latex,
    list_other_scripts,
    list_t1_characters,
    measure,
    split_pieces,
)
from fcnlab.report.tables.table import Table

COLUMN_WIDTH = 221.0
"""Width in points of a column of a two-column article on A4, narrower than on letter paper (229), in CVPR's (237) and
in IEEEtran's (252).

LaTeX's size10.clo sets the width of the text to that of the paper minus two inches, with 10 points between the columns.
"""

PAGE_WIDTH = 452.0
"""Width in points of the text of a two-column article on A4."""

NAMES = {10: "normalsize", 9: "small", 8: "footnotesize", 7: "scriptsize", 5: "tiny"}
SIZES = ((10, 6.0, False), (9, 5.0, False), (8, 4.0, False), (8, 3.0, True))
"""Size of the font in points, `tabcolsep` in points, and whether headings are broken; the first that fits is used."""

SMALLEST = (7, 3.0, True)
"""The last one for a table of the full page."""

DENSE = ((8, 3.0, True), (7, 3.0, True), (7, 2.0, True))
"""Those of a dense table of the full page."""

STD_SIZE = 5
"""Size in points of the standard deviations of a dense table: `tiny`."""


@dataclass(frozen=True)
class Layout:
    """Typography of a table.

    Attributes:
        size: size of the font in points.
        gap: `tabcolsep` in points.
        stacked: whether headings that are wider than their column are broken.
        name_widths: widths in points of the columns of names, whose texts are broken; empty to leave them whole.
        dense: whether headings of numbers are rotated, and standard deviations are below the means.
    """

    size: int
    gap: float
    stacked: bool
    name_widths: tuple[float, ...] = ()
    dense: bool = False


def find_layout(table: Table, *, wide: bool, wrap: bool, dense: bool = False) -> Layout | None:
    """Return the largest layout in which a table fits, or None.

    Args:
        table: table of texts.
        wide: whether it may take the width of the page instead of that of a column.
        wrap: whether the names may be broken.
        dense: whether it is a dense table, for many columns.
    """
    room = PAGE_WIDTH if wide else COLUMN_WIDTH
    for size, gap, stacked in DENSE if dense else (*SIZES, *([SMALLEST] if wide else [])):
        layout = Layout(size, gap, stacked, dense=dense)
        left = room - 2 * gap * (len(table.headings) - 1) - sum(_widths(table, layout)[table.text_columns :])
        if left >= sum(_widths(table, layout)[: table.text_columns]):
            return layout
        if wrap and stacked and (widths := _share(table, layout, left)) is not None:
            return replace(layout, name_widths=widths)
    return None


def to_latex(
    table: Table,
    caption: str,
    *,
    label: str,
    comments: Sequence[str],
    notes: Sequence[str],
    wide: bool,
    layout: Layout | None,
) -> str:
    """Format a table in LaTeX.

    Args:
        table: table of texts.
        caption: caption of the table.
        label: label for references, in ASCII.
        comments: lines above the table that are not printed.
        notes: sentences below the table.
        wide: whether to use the environment for the full width of the page.
        layout: result of `find_layout`; None for the smallest.
    """
    layout = layout or Layout(*SIZES[-1])
    environment = "table*" if wide else "table"
    printed = "".join([caption, *notes, *table.headings, *(text for row in table.rows for text in row)])
    others, t1 = list_other_scripts(printed), list_t1_characters(printed)
    packages = ["booktabs", *(["array"] if layout.name_widths else []), *(["graphicx"] if layout.dense else [])]
    lines = [
        *(f"% {' '.join(line.split())}" for line in comments),
        "% needs " + " and ".join(f"\\usepackage{{{name}}}" for name in packages),
        *([f"% needs \\usepackage[T1]{{fontenc}} in pdfLaTeX, for: {t1}"] if t1 else []),
        *([f"% compile with LuaLaTeX or XeLaTeX and a font that has: {others}"] if others else []),
        f"\\begin{{{environment}}}",
        "\\centering",
        "\\setlength{\\belowcaptionskip}{4pt}",
        f"\\caption{{{escape_latex(caption, breakable=True)}}}",
        f"\\label{{{label}}}",
        f"\\{NAMES[layout.size]}",
        f"\\setlength{{\\tabcolsep}}{{{layout.gap:g}pt}}",
        f"\\begin{{tabular}}{{@{{}}{''.join(_columns(table, layout))}@{{}}}}",
        "\\toprule",
        " & ".join(_headings(table, layout)) + " \\\\",
        "\\midrule",
        *_body(table, layout),
        "\\bottomrule",
        "\\end{tabular}",
        *(_below(notes) if notes else ()),
        f"\\end{{{environment}}}",
    ]
    return "\n".join(lines) + "\n"


def _columns(table: Table, layout: Layout) -> Iterator[str]:
    for column in range(len(table.headings)):
        if column >= table.text_columns:
            yield "r"
        elif layout.name_widths:
            yield f">{{\\raggedright\\arraybackslash}}p{{{layout.name_widths[column]:.1f}pt}}"
        else:
            yield "l"


def _headings(table: Table, layout: Layout) -> Iterator[str]:
    for column, heading in enumerate(table.headings):
        lines = _break_heading(table, column, layout)
        if layout.dense and column >= table.text_columns:
            side = "c@{}" if column == len(table.headings) - 1 else "c"
            yield f"\\multicolumn{{1}}{{{side}}}{{\\rotatebox{{90}}{{{escape_latex(heading)}}}}}"
        elif len(lines) == 1 or (layout.name_widths and column < table.text_columns):
            yield escape_latex(heading, breakable=bool(layout.name_widths) and column < table.text_columns)
        else:
            side = "l" if column < table.text_columns else "r"
            stacked = " \\\\ ".join(map(escape_latex, lines))
            yield f"\\shortstack[{side}]{{{stacked}}}"


def _body(table: Table, layout: Layout) -> Iterator[str]:
    for index, row in enumerate(table.rows):
        if index in table.group_starts:
            yield "\\midrule"
        lines = [_split_text(table, column, text, layout) for column, text in enumerate(row)]
        texts = [
            escape_latex(line[0], breakable=bool(layout.name_widths) and column < table.text_columns)
            for column, line in enumerate(lines)
        ]
        marked = (f"\\textbf{{{text}}}" if (index, n) in table.marks else text for n, text in enumerate(texts))
        yield " & ".join(marked) + (" \\\\[2pt]" if layout.name_widths and not layout.dense else " \\\\")
        below = [escape_latex(line[1]) if len(line) > 1 else "" for line in lines]
        if any(below):
            small = (f"\\{NAMES[STD_SIZE]} {text}" if text else "" for text in below)
            yield " & ".join(small) + " \\\\[2pt]"


def _split_text(table: Table, column: int, text: str, layout: Layout) -> list[str]:
    """Split a mean and its standard deviation, which is below it in a dense table."""
    mean, sign, std = text.partition(" ± ")
    return [mean, f"±{std}"] if layout.dense and sign and column >= table.text_columns else [text]


def _below(notes: Sequence[str]) -> list[str]:
    text = escape_latex(" ".join(notes), breakable=True).replace("}$ ", "}$~")  # a marker is not alone on a line
    return ["\\par\\vspace{2pt}", f"\\parbox{{\\linewidth}}{{\\footnotesize\\raggedright {text}}}"]


def _break_heading(table: Table, column: int, layout: Layout) -> list[str]:
    """Break a heading that is wider than the texts below it."""
    heading = table.headings[column]
    if not layout.stacked:
        return [heading]
    pieces = split_pieces(heading) if column < table.text_columns else re.findall(r"\S+\s*", heading)
    most = max([_body_width(table, column, layout), *(measure(piece, layout.size) for piece in pieces)])
    lines: list[str] = []
    for piece in pieces:
        if lines and measure(lines[-1] + piece, layout.size) <= most:
            lines[-1] += piece
        else:
            lines.append(piece)
    return [line.strip() for line in lines]


def _widths(table: Table, layout: Layout) -> list[float]:
    """Return the width of each column in points."""
    return [
        max(_body_width(table, column, layout), _heading_width(table, column, layout))
        for column in range(len(table.headings))
    ]


def _heading_width(table: Table, column: int, layout: Layout) -> float:
    if layout.dense and column >= table.text_columns:
        return layout.size  # the height of a line
    return max(measure(line, layout.size) for line in _break_heading(table, column, layout))


def _body_width(table: Table, column: int, layout: Layout) -> float:
    return max(
        (
            measure(line, size) * (BOLD if size == layout.size and (index, column) in table.marks else 1.0)
            for index, row in enumerate(table.rows)
            for line, size in zip(
                _split_text(table, column, row[column], layout), (layout.size, STD_SIZE), strict=False
            )
        ),
        default=0.0,
    )


def _share(table: Table, layout: Layout, room: float) -> tuple[float, ...] | None:
    """Share a width among the columns of names, or return None if a part of a name is wider than its share."""
    whole = _widths(table, layout)[: table.text_columns]
    least = [
        1.03 * max(measure(p, layout.size) for text in (table.headings[c], *(row[c] for row in table.rows))
                   for p in split_pieces(text) or [""])
        for c in range(table.text_columns)
    ]  # fmt: skip
    spare = room - sum(least)
    if spare < 0:
        return None
    wanted = [max(0.0, 1.03 * most - low) for most, low in zip(whole, least, strict=True)]
    part = min(1.0, spare / sum(wanted)) if sum(wanted) else 0.0
    return tuple(low + part * want for low, want in zip(least, wanted, strict=True))
