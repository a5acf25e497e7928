"""Tables of cells: selected columns, sorting, grouping and pivoting."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import pandas as pd

from fcnlab.errors import ConfigError, nearest
from fcnlab.report.tables.columns import COLUMNS, axis_texts, default_columns, significance_marker


@dataclass(frozen=True)
class Table:
    """A table of texts.

    Attributes:
        headings: one heading per column.
        rows: one text per column and row.
        text_columns: number of leading columns with names; the others are numbers.
        baseline_row: index of the row of the baseline; -1 for none.
        group_starts: indices of the rows that start another group.
    """

    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    text_columns: int
    baseline_row: int
    group_starts: tuple[int, ...] = field(default=())


@dataclass(frozen=True)
class View:
    """Selection of columns and order of cells.

    Attributes:
        columns: names of `COLUMNS`; empty for the default ones.
        sort: name of a column or axis, with a leading minus for descending order; empty for the order of the grid.
        group_by: axis whose equal values are put together; empty for none.
        pivot: axis of the rows and axis of the columns; None for one row per cell.
    """

    columns: tuple[str, ...] = ()
    sort: str = ""
    group_by: str = ""
    pivot: tuple[str, str] | None = None

    def make_table(self, cells: pd.DataFrame, axes: Sequence[str]) -> Table:
        """Return the table of a frame of cells.

        Args:
            cells: frame with one row per cell.
            axes: axes of the grid.

        Raises:
            ConfigError: there is no such column or axis; the message names the nearest.
        """
        cells = self.sort_cells(cells, axes)
        if self.pivot is not None:
            return _make_pivot_table(cells, axes, self.pivot, (self.columns or ("miou",))[0])
        return make_cell_table(cells, axes, self.columns, self._group_starts(cells))

    def sort_cells(self, cells: pd.DataFrame, axes: Sequence[str]) -> pd.DataFrame:
        """Return the cells in the order of this view.

        Args:
            cells: frame with one row per cell.
            axes: axes of the grid.

        Raises:
            ConfigError: there is no such column or axis; the message names the nearest.
        """
        for name in self.columns:
            _check_name("--columns", name, COLUMNS)
        if self.sort:
            name = self.sort.removeprefix("-")
            _check_name("--sort", name, [*COLUMNS, *axes])
            by = COLUMNS[name].fields[0] if name in COLUMNS and name not in axes else name
            cells = _sort(cells, by, ascending=not self.sort.startswith("-"))
        if self.group_by:
            _check_name("--group-by", self.group_by, axes)
            order = {value: index for index, value in enumerate(dict.fromkeys(map(str, cells[self.group_by])))}
            groups = cells[self.group_by].astype(str).map(order)
            cells = cells.iloc[groups.argsort(kind="stable")]
        return cells.reset_index(drop=True)

    def _group_starts(self, cells: pd.DataFrame) -> tuple[int, ...]:
        if not self.group_by:
            return ()
        values = list(map(str, cells[self.group_by]))
        return tuple(index for index in range(1, len(values)) if values[index] != values[index - 1])


def _sort(cells: pd.DataFrame, by: str, *, ascending: bool) -> pd.DataFrame:
    """Sort cells by a column, missing values last; values of different types are sorted as texts."""
    mixed = cells[by].dtype == object and len({type(value) for value in cells[by]}) > 1
    return cells.sort_values(by, ascending=ascending, kind="stable", key=(lambda c: c.astype(str)) if mixed else None)


def _check_name(option: str, name: str, valid: Iterable[str]) -> None:
    names = list(valid)
    if name not in names:
        raise ConfigError(f"{option}: the table has no '{name}'; {nearest(name, names)}")


def make_cell_table(
    cells: pd.DataFrame, axes: Sequence[str], columns: Sequence[str] = (), group_starts: tuple[int, ...] = ()
) -> Table:
    """Return the table of a grid with one row per cell.

    Args:
        cells: frame with one row per cell.
        axes: axes of the grid, the first columns.
        columns: names of `COLUMNS`; empty for the default ones.
        group_starts: indices of the rows that start another group.
    """
    names = list(axes) or ["cell"]
    selected = list(columns) or default_columns(cells)
    headings = (*names, *(COLUMNS[name].heading for name in selected))
    rows = tuple(
        (*axis_texts(row, names), *(COLUMNS[name].text(row) for name in selected)) for _, row in cells.iterrows()
    )
    return Table(headings, rows, len(names), int(cells["baseline"].to_numpy().argmax()), group_starts)


def _make_pivot_table(cells: pd.DataFrame, axes: Sequence[str], pivot: tuple[str, str], column: str) -> Table:
    """Return a table with one column per value of the second axis and one row per combination of the other axes."""
    for axis in pivot:
        _check_name("--pivot", axis, axes)
    down, across = pivot
    if down == across:
        raise ConfigError(f"--pivot: needs two different axes, got '{down}' twice")
    names = [down, *(axis for axis in axes if axis not in pivot)]
    values = list(dict.fromkeys(map(str, cells[across])))
    texts: dict[tuple[str, ...], dict[str, str]] = {}
    for _, row in cells.iterrows():
        key = tuple(str(row[name]) for name in names)
        texts.setdefault(key, {})[str(row[across])] = _pivot_text(row, column)
    rows = tuple((*key, *(by_value.get(value, "") for value in values)) for key, by_value in texts.items())
    headings = (*names, *(f"{across} {value}, {COLUMNS[column].heading}" for value in values))
    return Table(headings, rows, len(names), -1)


def _pivot_text(row: pd.Series, column: str) -> str:
    """Return the text of a column; an mIoU has the marker of its difference, which is not shown here."""
    text = COLUMNS[column].text(row)
    return text + significance_marker(row) if column == "miou" and not row["baseline"] else text
