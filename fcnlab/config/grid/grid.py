"""A grid: a comparison of cells over seeds with a baseline, described in one YAML file.

    question: What do skips improve on thin structures?
    base:     {backbone: resnet18, dataset: camvid, recipe: standard}
    product:  {head: [fcn32s, fcn16s, fcn8s]}
    seeds:    3

`docs/grids.md` explains all keys by examples.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from fcnlab.config.grid import checks
from fcnlab.config.grid.axes import Value, format_name
from fcnlab.config.grid.candidate import Candidate, are_equal, resolve
from fcnlab.config.grid.cell import Cell, Fingerprints
from fcnlab.config.grid.expand import expand, explain_unmet
from fcnlab.config.grid.file import GridFile
from fcnlab.config.grid.name import FOLDER, check_name, name_grid
from fcnlab.config.recipe import Recipe
from fcnlab.config.registry import Registry
from fcnlab.config.trial import Trial
from fcnlab.config.validation import validate
from fcnlab.config.yaml_file import read
from fcnlab.errors import ConfigError
from fcnlab.notebook import render_html
from fcnlab.paths import correct_names

__all__ = ["Cell", "Fingerprints", "Grid", "GridFile", "load", "resolve"]


@dataclass(frozen=True)
class Grid:
    """A valid grid.

    Attributes:
        name: path of the file below `experiments/`, without its suffix.
        path: path of the file.
        file: content of the file.
        cells: cells in the order of the file.
        baseline: one of the cells.
        seeds: seeds of each cell.
        axes: axes that vary over the cells.
        command: command that runs the only trial of a grid without a file.
        source: YAML text of a grid that was created from a dict, which a run writes to `path`; empty for a file.
    """

    name: str
    path: Path
    file: GridFile
    cells: tuple[Cell, ...]
    baseline: Cell
    seeds: tuple[int, ...] = field(default=(0,))
    axes: tuple[str, ...] = ()
    command: str = ""
    source: str = ""

    def __repr__(self) -> str:
        counts = f"{len(self.cells)} cells x {len(self.seeds)} seeds"
        return f"Grid({self.name}: {counts}, baseline {self.baseline.label}; {self.file.question})"

    def _repr_html_(self) -> str:
        trials = f"{len(self.cells)} cells x {len(self.seeds)} seeds = {len(self)} trials"
        rows = [tuple(format_name(value) for value in cell.axes.values()) for cell in self.cells]
        return render_html(
            f"{self.name}: {self.file.question}",
            headings=self.axes,
            rows=rows if self.axes else (),
            note=f"{trials}, baseline {self.baseline.label}",
        )

    def __len__(self) -> int:
        """Return the number of trials."""
        return len(self.cells) * len(self.seeds)

    @cached_property
    def display_names(self) -> Mapping[str, str]:
        """Display name of each cell by its label."""
        return {cell.label: self.file.labels.name_cell(cell) for cell in self.cells}

    def display_name(self, label: str) -> str:
        """Return the display name of a cell for tables, charts and texts.

        Args:
            label: label of a cell; another text is returned as it is.
        """
        return self.display_names.get(label, label)

    @cached_property
    def cells_by_dataset(self) -> Mapping[str, list[Cell]]:
        """The cells by the name of their dataset, the dataset of the grid's baseline first."""
        by_dataset: dict[str, list[Cell]] = {self.baseline.names["dataset"]: []}
        for cell in self.cells:
            by_dataset.setdefault(cell.names["dataset"], []).append(cell)
        return by_dataset

    @cached_property
    def baselines(self) -> Mapping[str, Cell]:
        """The baseline of each dataset by the dataset's name.

        For the dataset of the grid's baseline it is this one, for another the cell that has the most values of axes in
        common with the grid's baseline, the first of several.
        """

        def count_common(cell: Cell) -> int:
            return sum(value == self.baseline.axes[axis] for axis, value in cell.axes.items())

        found = {name: max(cells, key=count_common) for name, cells in self.cells_by_dataset.items()}
        return found | {self.baseline.names["dataset"]: self.baseline}

    @property
    def unchanged(self) -> Cell | None:
        """The cell to which the others of an ablation are compared; None if cells are named by all values."""
        return next((cell for cell in self.cells if cell.changed == ()), None)

    @property
    def recipes(self) -> list[Recipe]:
        """The recipe of each cell."""
        return [cell.recipe for cell in self.cells]

    def trials(self, fingerprints: Fingerprints) -> Iterator[tuple[Cell, Trial]]:
        """Yield every trial with its cell: all cells with the first seed, then with the second, ...

        Args:
            fingerprints: function that returns the fingerprints of a cell's dataset, weights file and extensions.

        Yields:
            A cell and its trial.
        """
        by_cell = [cell.trials(self.seeds, fingerprints) for cell in self.cells]
        for row in zip(*by_cell, strict=True):
            yield from zip(self.cells, row, strict=True)


def load(path: Path, registry: Registry) -> Grid:
    """Read a grid file, resolve its cells and check that the comparison is valid.

    Args:
        path: path of the grid file.
        registry: the components.

    Returns:
        The grid.

    Raises:
        ConfigError: all errors, one per line: an unknown key or name, a wrong type, no cells, two equal cells, a
            condition that no cell meets, a baseline that matches no cell or several, a head that needs a stride that
            the backbone lacks, too many cells, early stopping after epochs without validation, a label of an unknown
            axis, value or cell.
    """
    path = correct_names(path, FOLDER)
    return create_grid(read(path), path, registry, where=str(path))


def create_grid(content: Mapping[str, Any], path: Path, registry: Registry, *, where: str, source: str = "") -> Grid:
    """Create a grid from the content of its file.

    Args:
        content: content of the file.
        path: path of the file.
        registry: the components.
        where: start of each error.
        source: see `Grid`.

    Returns:
        The grid.

    Raises:
        ConfigError: all errors, one per line; see `load`.
    """
    name = name_grid(path)
    check_name(name, where)
    file, invalid_keys = _validate_file(content, where)
    excess = file.find_excess()
    if excess is not None:
        raise ConfigError(f"{where}: {excess}")
    expansion = expand(file, registry, where)
    candidates = expansion.candidates
    errors = [*file.find_errors(), *expansion.errors]
    if not candidates:
        errors.append(f"exclude: excludes all {expansion.total} cells")
    axes = _find_axes(file, candidates)
    cells, invalid = _make_cells(candidates, axes)
    if file.is_ablation and len(axes) > 1:
        cells = _name_changes(cells, candidates)
    baseline, unclear = _find_baseline(file, candidates)
    made = list(cells.values())
    errors += [*checks.find_duplicates(made), *unclear]
    errors += [
        *checks.check_channels(made),
        *checks.check_checkpoint(file, made),
        *checks.check_early_stopping(file, made),
    ]
    if not (errors or invalid):  # labels refer to the cells, which an error may have changed
        errors += file.labels.find_errors(axes, made)
    lines = [*invalid_keys, *(f"{where}: {error}" for error in errors), *invalid]
    if lines:
        raise ConfigError("\n".join(dict.fromkeys(lines)))
    assert baseline is not None, "otherwise there is an error"
    seeds = tuple(range(file.seeds)) if isinstance(file.seeds, int) else tuple(file.seeds)
    return Grid(name, path, file, tuple(made), cells[baseline], seeds, axes, source=source)


_WITHOUT_CELLS = ("question", "description", "conclusion", "seeds", "checkpoint", "early_stopping", "labels")
"""Keys of a grid file that do not select its cells."""


def _validate_file(content: Mapping[str, Any], where: str) -> tuple[GridFile, list[str]]:
    """Validate a grid file.

    Returns:
        The file, and its errors if they are in keys that do not select the cells, which can then be checked, too; these
        keys have valid values in the result.

    Raises:
        ConfigError: a key that selects the cells is invalid.
    """
    try:
        return validate(GridFile, content, where), []
    except ConfigError as error:
        rest = {key: value for key, value in content.items() if key not in _WITHOUT_CELLS}
        with suppress(ConfigError):  # the first error is reported
            return validate(GridFile, {"question": "?", **rest}, where), str(error).splitlines()
        raise


def _find_axes(file: GridFile, candidates: Sequence[Candidate]) -> tuple[str, ...]:
    """Return the axes of product, zip and sample, and all others that differ between cells, in order of appearance."""
    always = {axis for block in file.sets for axis in (*block.product, *block.zip, *block.sampled_axes)}
    mentioned = [axis for block in file.sets for axis in (*block.varied_axes, *(block.base if file.blocks else ()))]

    def differs(axis: str) -> bool:
        values = [_value_or_none(candidate, axis) for candidate in candidates]
        return not all(are_equal(value, values[0]) for value in values)

    return tuple(axis for axis in dict.fromkeys(mentioned) if axis in always or differs(axis))


def _value_or_none(candidate: Candidate, axis: str) -> Value:
    """Return the value of an axis; None if the candidate is invalid, which is reported elsewhere."""
    try:
        return candidate.value(axis)
    except ConfigError:
        return None


def _make_cells(candidates: Sequence[Candidate], axes: Sequence[str]) -> tuple[dict[int, Cell], list[str]]:
    """Return the valid cells by the index of their candidate, with a value for each axis, and the errors of others."""
    cells: dict[int, Cell] = {}
    errors: dict[str, None] = {}
    for index, candidate in enumerate(candidates):
        try:
            cells[index] = replace(candidate.cell(), axes={axis: candidate.value(axis) for axis in axes})
        except ConfigError as error:
            errors |= dict.fromkeys(str(error).splitlines())
    return cells, list(errors)


def _name_changes(cells: Mapping[int, Cell], candidates: Sequence[Candidate]) -> dict[int, Cell]:
    """Return the cells of an ablation with the axes in which they differ from the unchanged one, if it is there.

    An axis whose value another change determines is left out, such as `head.stride` in a cell that sets `head`.
    """
    first = next((index for index in cells if candidates[index].unchanged), None)
    if first is None:
        return dict(cells)

    def find_changes(index: int) -> tuple[str, ...]:
        values, before = cells[index].axes, cells[first].axes
        differing = [axis for axis, value in values.items() if not are_equal(value, before[axis])]
        return tuple(axis for axis in differing if not candidates[index].sets_as(candidates[first], axis))

    return {index: replace(cell, changed=find_changes(index)) for index, cell in cells.items()}


def _find_baseline(file: GridFile, candidates: Sequence[Candidate]) -> tuple[int | None, list[str]]:
    """Return the index of the baseline, or the reason why there is none.

    Without `baseline` it is the first unchanged cell of an ablation, or else the first cell.
    """
    if file.baseline is None:
        unchanged = [index for index, candidate in enumerate(candidates) if candidate.unchanged]
        return next(iter([*unchanged, *range(len(candidates))]), None), []
    matching = [index for index, candidate in enumerate(candidates) if candidate.meets(file.baseline)]
    if len(matching) == 1:
        return matching[0], []
    if matching:
        return None, [f"baseline: matches {len(matching)} cells; give more axes"]
    return None, explain_unmet("baseline", file.baseline, candidates)
