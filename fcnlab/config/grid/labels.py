"""Labels: the names of axes, values, cells, classes and columns that tables, charts and texts show."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field

from fcnlab.config.base import Config
from fcnlab.config.dataset import FolderDataset
from fcnlab.config.grid.axes import Axis, ByAxis, Value, format_name, short_names
from fcnlab.config.grid.cell import Cell
from fcnlab.errors import list_some, nearest

MAX_LISTED = 8
"""Maximum number of cells in a message, and of errors about equal display names."""

Text = Annotated[str, Field(min_length=1)]
ValueText = Annotated[str, BeforeValidator(format_name)]
"""The text of a value: YAML reads 0.1 and true as a number and a boolean."""


COLUMNS = (
    "n", "miou", "delta", "delta_mean", "pixel_acc", "mean_acc", "fw_iou", "boundary_iou", "dice", "image_miou",
    "image_dice", "params", "gmacs", "images_per_s", "peak_memory", "device_hours", "train_seconds", "miou_median",
    "miou_range", "miou_last", "miou_best", "delta_std", "p_value", "p_holm", "flags",
)  # fmt: skip
"""Names of the columns of a report's table, which `fcnlab.report` defines; a test compares them."""


def _check_column(name: str) -> str:
    if name not in COLUMNS:
        raise ValueError(f"the table has no such column; {nearest(name, COLUMNS)}")
    return name


ColumnName = Annotated[str, AfterValidator(_check_column)]


class Labels(Config):
    """Display names of a grid. They change no trial; commands find a cell by its label and by its display name.

    Attributes:
        caption: caption of the table in LaTeX; by default the question.
        axes: display names by axis.
        values: display names by axis and value.
        cells: display names by the labels of cells, such as `fcn8s, random`; spaces after commas are optional.
        classes: display names of classes by their names in the dataset.
        columns: headings by the names of columns, such as `miou`.
    """

    caption: str = ""
    axes: Annotated[dict[Axis, Text], ByAxis] = Field(default_factory=dict)
    values: Annotated[dict[Axis, dict[ValueText, Text]], ByAxis] = Field(default_factory=dict)
    cells: dict[ValueText, Text] = Field(default_factory=dict)
    classes: dict[ValueText, Text] = Field(default_factory=dict)
    columns: dict[ColumnName, Text] = Field(
        default_factory=dict, json_schema_extra={"propertyNames": {"enum": list(COLUMNS)}}
    )

    def name_axes(self, axes: Iterable[str]) -> dict[str, str]:
        """Return the display name of each axis: that of the grid file, else the end of its path that no other has.

        Args:
            axes: full names of the axes.

        >>> Labels(axes={"recipe.epochs": "lr"}).name_axes(["head", "recipe.optimizer.lr", "recipe.epochs"])
        {'head': 'head', 'recipe.optimizer.lr': 'recipe.optimizer.lr', 'recipe.epochs': 'lr'}
        >>> Labels().name_axes(["recipe.optimizer.lr"])
        {'recipe.optimizer.lr': 'lr'}
        """
        taken = {*self.axes.values()}
        short = {axis: axis if end in taken else end for axis, end in short_names(axes).items()}
        return {axis: self.axes.get(axis, end) for axis, end in short.items()}

    def name_value(self, axis: str, value: Value) -> str:
        """Return the display name of a value.

        Args:
            axis: full name of the axis.
            value: a value of the axis.
        """
        text = format_name(value)
        return self.values.get(axis, {}).get(text, text)

    def find_cell_name(self, cell: Cell) -> str | None:
        """Return the display name of a cell that replaces the values of its axes, or None.

        Args:
            cell: a cell of the grid.

        Returns:
            The name that `cells` gives, or that of the changes in an ablation.
        """
        names = {_fold(key): name for key, name in self.cells.items()}
        return names.get(_fold(cell.label)) or self._name_changes(cell)

    def _name_changes(self, cell: Cell) -> str | None:
        """Return the changes of the cell of an ablation; a value with a display name of its own needs no axis."""
        if cell.changed is None:
            return None
        short = short_names(cell.axes)
        texts = []
        for axis in cell.changed:
            value, text = cell.axes[axis], self.name_value(axis, cell.axes[axis])
            texts.append(text if text != format_name(value) else f"{self.axes.get(axis, short[axis])} {text}")
        return ", ".join(texts) or cell.label

    def describe_unchanged(self, cell: Cell) -> str:
        """Return the name and the named axis values of a cell, as shown for an ablation's unchanged cell.

        A field that consists of others and has no value other than the defaults is `default`. It is left out if an axis
        inside it is shown.

        Args:
            cell: the unchanged cell of an ablation.
        """
        short = short_names(cell.axes)
        texts = {axis: self.name_value(axis, value) for axis, value in cell.axes.items()}
        values = (
            f"{self.axes.get(axis, short[axis])} {'default' if text == '{}' else text}"
            for axis, text in texts.items()
            if text != "{}" or not any(other.startswith(f"{axis}.") for other in texts)
        )
        return f"{self.name_cell(cell)}: {', '.join(values)}"

    def name_cell(self, cell: Cell) -> str:
        """Return the display name of a cell: that of `find_cell_name`, else the display names of its values.

        Args:
            cell: a cell of the grid.
        """
        name = self.find_cell_name(cell)
        values = ", ".join(self.name_value(axis, value) for axis, value in cell.axes.items())
        return name or values or cell.label

    def find_errors(self, axes: Sequence[str], cells: Sequence[Cell]) -> list[str]:
        """List the labels of unknown axes, values and cells, and axes and cells with equal display names.

        Args:
            axes: axes of the grid.
            cells: cells of the grid.

        Returns:
            One error per line.
        """
        errors = [
            f"labels: {key}: {axis} is not an axis of this grid; {nearest(axis, axes)}"
            for key, names in (("axes", self.axes), ("values", self.values))
            for axis in names
            if axis not in axes
        ]
        for axis, names in self.values.items():
            valid = dict.fromkeys(format_name(cell.axes[axis]) for cell in cells if axis in cell.axes)
            errors += [
                f"labels: values: {axis}: no cell has {value}; {nearest(value, valid)}"
                for value in names
                if valid and value not in valid
            ]
        labels = {_fold(cell.label): cell.label for cell in cells}
        unknown = [key for key in self.cells if _fold(key) not in labels]
        errors += [f"labels: cells: no cell '{key}'; {suggest_labels(key, list(labels.values()))}" for key in unknown]
        errors += self._find_unknown_classes(cells)
        return errors or [
            *self._find_equal_axes(axes),
            *self._find_duplicates(cells),
            *_find_equal("classes", self.classes),
            *_find_equal("columns", self.columns),
        ]

    def _find_unknown_classes(self, cells: Sequence[Cell]) -> list[str]:
        """List the classes that no dataset has, if the classes of all datasets are in the configuration."""
        specs = [cell.dataset for cell in cells]
        classes = [name for spec in specs if isinstance(spec, FolderDataset) for name, _ in spec.classes]
        if not all(isinstance(spec, FolderDataset) for spec in specs):
            return []
        return [
            f"labels: classes: no dataset of this grid has the class {name}; {nearest(name, dict.fromkeys(classes))}"
            for name in self.classes
            if name not in classes
        ]

    def _find_equal_axes(self, axes: Sequence[str]) -> list[str]:
        """List the pairs of axes with equal display names, which would be the headings of two columns."""
        first: dict[str, str] = {}
        return [
            f"labels: axes: {first[name]} and {axis} are both shown as '{name}'; give one of them another name"
            for axis, name in self.name_axes(axes).items()
            if first.setdefault(name, axis) != axis
        ]

    def _find_duplicates(self, cells: Sequence[Cell]) -> list[str]:
        """List the pairs of cells with equal display names."""
        first: dict[str, str] = {}
        errors = []
        for cell in cells:
            name = self.name_cell(cell)
            if first.get(name, cell.label) != cell.label:
                errors.append(f"labels: the cells '{first[name]}' and '{cell.label}' are both shown as '{name}'")
            first.setdefault(name, cell.label)
        return errors[:MAX_LISTED]


def _find_equal(key: str, names: Mapping[str, str]) -> list[str]:
    """List the pairs of equal display names, which would be the headings of two columns."""
    first: dict[str, str] = {}
    return [
        f"labels: {key}: {first[shown]} and {name} are both shown as '{shown}'; give one of them another name"
        for name, shown in names.items()
        if first.setdefault(shown, name) != name
    ]


def quote_labels(labels: Sequence[str]) -> str:
    """List labels of cells in quotes, since they contain commas.

    Args:
        labels: the labels, of which the first `MAX_LISTED` are listed.

    >>> quote_labels(["fcn8s, bilinear", "fcn8s, random"])
    "'fcn8s, bilinear'; 'fcn8s, random'"
    """
    return list_some([f"'{label}'" for label in labels], MAX_LISTED, "; ")


def suggest_labels(name: str, labels: Sequence[str]) -> str:
    """Describe the labels that are closest to a wrong one.

    Args:
        name: the wrong label.
        labels: the labels of the cells.
    """
    return f"the closest cells are {quote_labels(get_close_matches(name, labels, n=len(labels), cutoff=0.0))}"


def _fold(label: str) -> str:
    """Return the label of a cell without spaces after commas, as it is given on the command line."""
    return ",".join(part.strip() for part in label.split(","))
