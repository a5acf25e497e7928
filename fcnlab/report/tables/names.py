"""Names of axes and cells in the first columns of a table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from fcnlab.config.grid.axes import short_names
from fcnlab.config.grid.grid import Grid
from fcnlab.report.tables.columns import FLAGGED


def quote_name(name: str) -> str:
    """Return the name of a cell for a sentence: in quotation marks, unless it is a single word.

    Args:
        name: display name of a cell.
    """
    return f"“{name}”" if not name[:1].isalpha() or "," in name or " " in name else name


def number_repeated(names: Sequence[str]) -> list[str]:
    """Return a different name for each of some names: repeated ones get a number.

    Args:
        names: any names.

    Example:
        >>> number_repeated(["car", "sky", "car"])
        ['car', 'sky', 'car (2)']
    """
    seen: Counter[str] = Counter()
    numbered = []
    for name in names:
        seen[name] += 1
        numbered.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return numbered


@dataclass(frozen=True)
class Names:
    """Display names of the axes of a grid and of their values in each cell.

    Attributes:
        axes: display name of each axis, in the order of the table.
        values: label of a cell -> axis -> display name of the value.
        cells: label of a cell -> display name, for the cells that the grid file names and those of an ablation.
    """

    axes: Mapping[str, str]
    values: Mapping[str, Mapping[str, str]]
    cells: Mapping[str, str]

    @classmethod
    def of_grid(cls, grid: Grid) -> Names:
        """Return the names that a grid file gives.

        Args:
            grid: the grid.
        """
        labels = grid.file.labels
        named = {cell.label: labels.find_cell_name(cell) for cell in grid.cells}
        return cls(
            {axis: labels.name_axis(axis) for axis in grid.axes},
            {c.label: {axis: labels.name_value(axis, value) for axis, value in c.axes.items()} for c in grid.cells},
            {label: name for label, name in named.items() if name is not None},
        )

    @property
    def headings(self) -> tuple[str, ...]:
        """Headings of the columns of names: the axes, or `cell` if there is no axis or each cell has its own name."""
        return ("cell",) if self._are_complete or not self.axes else tuple(self.axes.values())

    @property
    def _are_complete(self) -> bool:
        return self.cells.keys() == self.values.keys() and bool(self.cells)

    def shorten(self) -> Names:
        """Return names in which the heading of an axis is the end of its path that no other axis has."""
        ends = short_names(self.axes)
        short = {axis: ends[axis] if name == axis else name for axis, name in self.axes.items()}
        return Names(short, self.values, self.cells)

    def texts(self, row: pd.Series) -> tuple[str, ...]:
        """Return the texts of a cell's columns of names, the first with a marker if the cell is not comparable.

        Args:
            row: a row of the frame of cells.
        """
        label = str(row["cell"])
        name = self.cells.get(label)
        if self._are_complete or not self.axes:
            texts = [label if name is None else name]
        else:
            texts = [self.values[label][axis] for axis in self.axes]
            texts[0] += "" if name is None else f" ({name})"
        return (texts[0] + FLAGGED if row["flags"] else texts[0], *texts[1:])
