"""Display names of a whole grid: the columns of names of its tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from fcnlab.config.grid.axes import full_name, short_names
from fcnlab.config.grid.grid import Grid


@dataclass(frozen=True)
class Names:
    """Display names of the axes of a grid, of their values in each cell, and of classes and columns.

    Attributes:
        axes: display name of each axis, in the order of the table.
        values: label of a cell -> axis -> display name of the value.
        cells: label of a cell -> display name, for the cells that the grid file names and those of an ablation.
        classes: name of a class -> display name, for the classes that the grid file names.
        columns: name of a column -> heading, for the columns that the grid file names.
    """

    axes: Mapping[str, str]
    values: Mapping[str, Mapping[str, str]]
    cells: Mapping[str, str]
    classes: Mapping[str, str] = field(default_factory=dict)
    columns: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of_grid(cls, grid: Grid) -> Names:
        """Return the names that a grid file gives.

        Args:
            grid: the grid.
        """
        labels = grid.file.labels
        named = {cell.label: labels.find_cell_name(cell) for cell in grid.cells}
        return cls(
            labels.name_axes(grid.axes),
            {c.label: {axis: labels.name_value(axis, value) for axis, value in c.axes.items()} for c in grid.cells},
            {label: name for label, name in named.items() if name is not None},
            labels.classes,
            labels.columns,
        )

    @property
    def headings(self) -> tuple[str, ...]:
        """Headings of the columns of names: the axes, or `cell` if there is no axis or each cell has its own name."""
        return ("cell",) if self._are_complete or not self.axes else tuple(self.axes.values())

    @property
    def _are_complete(self) -> bool:
        return self.cells.keys() == self.values.keys() and bool(self.cells)

    def find_axis(self, name: str) -> str | None:
        """Return the full name of an axis, or None if the grid has no such axis.

        Args:
            name: the full name, an end of it that is valid in a grid file, such as `recipe.lr`, or the display name.
        """
        if name in self.axes:
            return name
        for axis, shown in self.axes.items():
            if shown == name:
                return axis
        ends = {end: axis for axis, end in short_names(self.axes).items()}
        try:
            full = full_name(name)
        except ValueError:
            return ends.get(name)
        return full if full in self.axes else None

    def texts(self, label: str) -> tuple[str, ...]:
        """Return the texts of a cell in the columns of names.

        Args:
            label: label of the cell.
        """
        name = self.cells.get(label)
        if self._are_complete or not self.axes:
            return (label if name is None else name,)
        first, *others = (self.values[label][axis] for axis in self.axes)
        return (first if name is None else f"{first} ({name})", *others)
