"""A table of texts, which `formats` and `latex` write."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Table:
    """A table of texts.

    Attributes:
        headings: one heading per column.
        rows: one text per column and row.
        text_columns: number of leading columns with names; the others are numbers.
        baseline_rows: indices of the rows of baselines.
        group_starts: indices of the rows that start another group.
        marks: indices of row and column of the texts in bold: the best cell and those that do not differ from it.
        columns: name of each column of numbers, see `find_column`; empty for a table of other columns.
        is_pivoted: whether the columns of numbers are the values of an axis.
    """

    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    text_columns: int
    baseline_rows: frozenset[int] = frozenset()
    group_starts: tuple[int, ...] = ()
    marks: frozenset[tuple[int, int]] = frozenset()
    columns: tuple[str, ...] = ()
    is_pivoted: bool = False
