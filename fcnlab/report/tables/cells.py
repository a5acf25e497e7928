"""The ablation table as a person reads it: which rows and columns, in which order."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import pandas as pd

from fcnlab.errors import ConfigError, nearest
from fcnlab.report.tables.columns import COLUMNS, default_columns, marked_names, marker


@dataclass(frozen=True)
class Table:
    """Column headings and rows of texts.

    `texts` is how many columns are names, `marked` the row of the baseline (-1 for none), and before each of the rows
    `rules` another group begins.
    """

    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    texts: int
    marked: int
    rules: tuple[int, ...] = field(default=())


@dataclass(frozen=True)
class View:
    """How a person wants to see the cells; `sort` by a column, from the greatest down with a minus before it."""

    columns: tuple[str, ...] = ()
    sort: str = ""
    group_by: str = ""
    pivot: tuple[str, str] | None = None

    def of(self, cells: pd.DataFrame, axes: Sequence[str]) -> Table:
        """The table of a frame of cells with these axes.

        Raises:
            ConfigError: there is no such column or axis; the message says what is nearest.
        """
        cells = self.ordered(cells, axes)
        if self.pivot is not None:
            return _pivoted(cells, axes, self.pivot, (self.columns or ("miou",))[0])
        return cell_table(cells, axes, self.columns, self._groups(cells))

    def ordered(self, cells: pd.DataFrame, axes: Sequence[str]) -> pd.DataFrame:
        """The cells in the order of this view. Raises ConfigError as `of` does."""
        for name in self.columns:
            _known("--columns", name, COLUMNS)
        if self.sort:
            name = self.sort.removeprefix("-")
            _known("--sort", name, [*COLUMNS, *axes])
            by = COLUMNS[name].fields[0] if name in COLUMNS and name not in axes else name
            cells = _sorted(cells, by, ascending=not self.sort.startswith("-"))
        if self.group_by:
            _known("--group-by", self.group_by, axes)
            first = {value: place for place, value in enumerate(dict.fromkeys(map(str, cells[self.group_by])))}
            places = cells[self.group_by].astype(str).map(first)
            cells = cells.iloc[places.argsort(kind="stable")]
        return cells.reset_index(drop=True)

    def _groups(self, cells: pd.DataFrame) -> tuple[int, ...]:
        """The rows before which another group begins."""
        if not self.group_by:
            return ()
        values = list(map(str, cells[self.group_by]))
        return tuple(place for place in range(1, len(values)) if values[place] != values[place - 1])


def _sorted(cells: pd.DataFrame, by: str, *, ascending: bool) -> pd.DataFrame:
    """Cells without a value come last; values of more than one kind are sorted as texts."""
    mixed = cells[by].dtype == object and len({type(value) for value in cells[by]}) > 1
    return cells.sort_values(by, ascending=ascending, kind="stable", key=(lambda c: c.astype(str)) if mixed else None)


def _known(option: str, name: str, valid: Iterable[str]) -> None:
    names = list(valid)
    if name not in names:
        raise ConfigError(f"{option}: the table has no '{name}'; {nearest(name, names)}")


def cell_table(
    cells: pd.DataFrame, axes: Sequence[str], columns: Sequence[str] = (), rules: tuple[int, ...] = ()
) -> Table:
    """The table of a grid: one row a cell, percentages with one decimal, the baseline marked."""
    names = list(axes) or ["cell"]
    chosen = list(columns) or default_columns(cells)
    headings = (*names, *(COLUMNS[name].heading for name in chosen))
    rows = tuple(
        (*marked_names(row, names), *(COLUMNS[name].text(row) for name in chosen)) for _, row in cells.iterrows()
    )
    return Table(headings, rows, len(names), int(cells["baseline"].to_numpy().argmax()), rules)


def _pivoted(cells: pd.DataFrame, axes: Sequence[str], pivot: tuple[str, str], column: str) -> Table:
    """One column for each value of the second axis, one row for each combination of all the others."""
    for axis in pivot:
        _known("--pivot", axis, axes)
    down, across = pivot
    if down == across:
        raise ConfigError(f"--pivot: two axes are needed, and '{down}' stands twice")
    names = [down, *(axis for axis in axes if axis not in pivot)]
    values = list(dict.fromkeys(map(str, cells[across])))
    found: dict[tuple[str, ...], dict[str, str]] = {}
    for _, row in cells.iterrows():
        key = tuple(str(row[name]) for name in names)
        found.setdefault(key, {})[str(row[across])] = _pivot_text(row, column)
    rows = tuple((*key, *(by_value.get(value, "") for value in values)) for key, by_value in found.items())
    headings = (*names, *(f"{across} {value}, {COLUMNS[column].heading}" for value in values))
    return Table(headings, rows, len(names), -1)


def _pivot_text(row: pd.Series, column: str) -> str:
    """A figure with the marker of its difference, which has no column of its own here."""
    text = COLUMNS[column].text(row)
    return text + marker(row) if column == "miou" and not row["baseline"] else text
