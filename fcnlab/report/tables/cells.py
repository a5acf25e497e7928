"""Tables of cells: selected columns, sorting, grouping and pivoting."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import pandas as pd

from fcnlab.config.grid.display_names import Names
from fcnlab.errors import ConfigError, list_some, nearest
from fcnlab.report.tables.columns import (
    CLASS_METRICS,
    COLUMNS,
    DECIMALS,
    FLAGGED,
    MAX_DECIMALS,
    default_columns,
    find_column,
    make_heading,
    match_column,
    significance_marker,
    split_class_column,
)
from fcnlab.report.tables.table import Table

MARKED = "miou"
"""The column in which the best cells are in bold."""


@dataclass(frozen=True)
class View:
    """Selection of columns and order of cells.

    Attributes:
        columns: names of columns, see `find_column`; empty for the default ones.
        sort: name of a column or axis, with a leading minus for descending order; empty for the order of the grid.
        group_by: axis whose equal values are put together; empty for none.
        pivot: axis of the rows and axis of the columns; None for one row per cell.
        decimals: number of decimals of percentages and of differences in points.

    Raises:
        ConfigError: the number of decimals is negative or too large.
    """

    columns: tuple[str, ...] = ()
    sort: str = ""
    group_by: str = ""
    pivot: tuple[str, str] | None = None
    decimals: int = DECIMALS

    def __post_init__(self) -> None:
        if not 0 <= self.decimals <= MAX_DECIMALS:
            raise ConfigError(f"--decimals {self.decimals}: expected a number from 0 to {MAX_DECIMALS}")

    def resolve(self, names: Names) -> View:
        """Return this view with the full names of its axes and columns; unknown names are kept.

        Args:
            names: display names of the grid.
        """
        sign, sort = ("-", self.sort[1:]) if self.sort.startswith("-") else ("", self.sort)
        if sort not in COLUMNS:
            sort = names.find_axis(sort) or match_column(sort, names)
        down, across = self.pivot or ("", "")
        return replace(
            self,
            columns=tuple(match_column(name, names) for name in self.columns),
            sort=f"{sign}{sort}",
            group_by=names.find_axis(self.group_by) or self.group_by,
            pivot=(names.find_axis(down) or down, names.find_axis(across) or across) if self.pivot else None,
        )

    def make_table(self, cells: pd.DataFrame, names: Names) -> Table:
        """Return the table of a frame of cells.

        Args:
            cells: frame with one row per cell, and the fields of the view's other columns; see `add_requested_columns`.
            names: display names.

        Raises:
            ConfigError: there is no such column or axis; the message names the nearest. Or a pivoted table has several
                columns, or two cells with the same display names.
        """
        self.check_columns(cells)
        cells = self.sort_cells(cells, names.axes)
        if self.pivot is not None:
            if len(self.columns) > 1:
                raise ConfigError(f"--pivot: shows one column, not {list_some(self.columns, 3)}; name one in --columns")
            return _make_pivot_table(cells, names, self.pivot, (self.columns or (MARKED,))[0], self.decimals)
        return make_cell_table(cells, names, self.columns, self._group_starts(cells), self.decimals)

    def check_columns(self, cells: pd.DataFrame) -> None:
        """Check the names of the columns.

        Args:
            cells: frame with one row per cell.

        Raises:
            ConfigError: there is no such column; the message names the nearest.
        """
        for name in self.columns:
            _check_column("--columns", name, cells)

    def sort_cells(self, cells: pd.DataFrame, axes: Iterable[str]) -> pd.DataFrame:
        """Return the cells in the order of this view.

        Args:
            cells: frame with one row per cell.
            axes: axes of the grid.

        Raises:
            ConfigError: there is no such column or axis; the message names the nearest.
        """
        if self.sort:
            name = self.sort.removeprefix("-")
            _check_column("--sort", name, cells, axes)
            by = name if name in axes else find_column(name).fields[0]
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


def _check_column(option: str, name: str, cells: pd.DataFrame, axes: Iterable[str] = ()) -> None:
    """Check the name of a column or axis; the frame of cells has the class columns that exist."""
    if not (split_class_column(name)[0] and name in cells):
        _check_name(option, name, [*COLUMNS, *axes], [f"{metric}:CLASS" for metric in CLASS_METRICS])


def _check_name(option: str, name: str, valid: Iterable[str], patterns: Iterable[str] = ()) -> None:
    names = list(valid)
    if name not in names:
        raise ConfigError(f"{option}: the table has no '{name}'; {nearest(name, [*names, *patterns])}")


def make_cell_table(
    cells: pd.DataFrame,
    names: Names,
    columns: Sequence[str] = (),
    group_starts: tuple[int, ...] = (),
    decimals: int = DECIMALS,
) -> Table:
    """Return the table of a grid with one row per cell.

    Args:
        cells: frame with one row per cell.
        names: display names, the first columns.
        columns: names of columns; empty for the default ones.
        group_starts: indices of the rows that start another group.
        decimals: number of decimals of percentages.
    """
    selected = tuple(columns) or default_columns(cells)
    shown = [find_column(name) for name in selected]
    first = len(names.headings)
    marked = first + selected.index(MARKED) if MARKED in selected else -1
    return Table(
        headings=(*names.headings, *(make_heading(name, names) for name in selected)),
        rows=tuple(
            (*_name_texts(row, names), *(column.text(row, decimals) for column in shown)) for _, row in cells.iterrows()
        ),
        text_columns=first,
        baseline_rows=frozenset(row for row, is_baseline in enumerate(cells["baseline"]) if is_baseline),
        group_starts=group_starts,
        marks=frozenset((row, marked) for row, best in enumerate(cells["best"]) if best and marked >= 0),
        columns=selected,
    )


def _name_texts(row: pd.Series, names: Names) -> tuple[str, ...]:
    """Return the texts of the columns of names, the first with a marker if the cell is not comparable."""
    first, *others = names.texts(str(row["cell"]))
    return (first + FLAGGED if row["flags"] else first, *others)


def _make_pivot_table(cells: pd.DataFrame, names: Names, pivot: tuple[str, str], column: str, decimals: int) -> Table:
    """Return a table with one column per value of the second axis and one row per combination of the other axes."""
    for axis in pivot:
        _check_name("--pivot", axis, names.axes)
    down, across = pivot
    if down == across:
        raise ConfigError(f"--pivot: needs two different axes, got '{down}' twice")
    left = [down, *(axis for axis in names.axes if axis not in pivot)]
    values = list(dict.fromkeys(names.values[str(cell)][across] for cell in cells["cell"]))
    texts_by_row: dict[tuple[str, ...], dict[str, str]] = {}
    marks: set[tuple[int, int]] = set()
    labels: dict[tuple[tuple[str, ...], str], str] = {}
    for _, row in cells.iterrows():
        own = names.values[str(row["cell"])]
        key, value = tuple(own[axis] for axis in left), own[across]
        first = labels.setdefault((key, value), str(row["cell"]))
        if first != row["cell"]:
            raise ConfigError(
                f"--pivot: the cells '{first}' and '{row['cell']}' have the same place, since values of an axis have "
                "equal display names; give these different names in the grid file, under labels: values"
            )
        texts_by_row.setdefault(key, {})[value] = _pivot_text(row, column, decimals)
        if row["best"] and column == MARKED:
            marks.add((list(texts_by_row).index(key), len(left) + values.index(value)))
    return Table(
        headings=(
            *(names.axes[axis] for axis in left),
            *(f"{names.axes[across]} {value}, {make_heading(column, names)}" for value in values),
        ),
        rows=tuple((*key, *(texts.get(value, "") for value in values)) for key, texts in texts_by_row.items()),
        text_columns=len(left),
        marks=frozenset(marks),
        columns=(column,) * len(values),
        is_pivoted=True,
    )


def _pivot_text(row: pd.Series, column: str, decimals: int) -> str:
    """Return the text of a column; an mIoU has the markers of its difference and its cell, which are not shown here."""
    text = find_column(column).text(row, decimals) + (FLAGGED if row["flags"] else "")
    return text + significance_marker(row) if column == MARKED and not row["baseline"] else text
