"""A table as a pandas Styler, for notebooks."""

from __future__ import annotations

from html import escape

import pandas as pd
from pandas.io.formats.style import Styler

from fcnlab.report.tables.names import number_repeated
from fcnlab.report.tables.table import Table


def to_styler(table: Table, caption: str) -> Styler:
    """Format a table as a pandas Styler with the marks in bold, for notebooks and for `Styler.to_excel`.

    Colors are those of the notebook, so that it is readable in its light and in its dark theme.

    Args:
        table: table of texts.
        caption: caption of the table.
    """
    headings = number_repeated(table.headings)  # pandas formats only frames with different headings
    frame = pd.DataFrame(list(table.rows), columns=headings)
    bold = [
        ["font-weight: bold" if (row, column) in table.marks else "" for column in range(len(headings))]
        for row in range(len(frame))
    ]
    styler = frame.style.hide(axis="index").set_caption(escape(caption)).format(escape="html")
    styler = styler.format_index(escape="html", axis=1)
    styler = styler.apply(lambda shown: pd.DataFrame(bold, index=shown.index, columns=shown.columns), axis=None)
    first = table.text_columns
    aligned = [(headings[:first], "left"), (headings[first:], "right")]
    for columns, side in aligned:
        styler = styler.set_properties(subset=pd.Index(columns), **{"text-align": side})
    return styler
