"""A grid is a question: a set of cells and seeds, a baseline.

    question: What do skips buy on thin structures?
    base:     {backbone: resnet18, upsampler: bilinear, dataset: camvid, recipe: standard}
    product:  {head: [fcn32s, fcn16s, fcn8s]}
    seeds:    3
    baseline: {head: fcn32s}

`variant` gives backbone, head and upsampler at once; the more special wins. `init_from` loads the last
weights of a finished trial: the overrides that turn the cell into that trial, such as `init_from: {head: fcn32s}` for
staged training, or the key of a finished trial of this lab. A trial that is needed for this runs first, with the same
seed.

`docs/grids.md` shows by examples what else a file may say.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from fcnlab.config.grid import checks
from fcnlab.config.grid.axes import Value, text
from fcnlab.config.grid.cell import Cell, Fingerprints
from fcnlab.config.grid.expand import Draft, expand, never_met
from fcnlab.config.grid.file import GridFile
from fcnlab.config.grid.resolve import Resolver, resolve
from fcnlab.config.recipe import Recipe
from fcnlab.config.registry import Registry
from fcnlab.config.trial import Trial
from fcnlab.config.yaml_file import read, validate
from fcnlab.errors import ConfigError

__all__ = ["Cell", "Fingerprints", "Grid", "GridFile", "load", "resolve"]


@dataclass(frozen=True)
class Grid:
    """A question, checked: its cells, its seeds, the baseline among the cells, and the axes that vary over them."""

    name: str
    path: Path
    file: GridFile
    cells: tuple[Cell, ...]
    baseline: Cell
    seeds: tuple[int, ...] = field(default=(0,))
    axes: tuple[str, ...] = ()

    def __len__(self) -> int:
        """How many trials the grid has."""
        return len(self.cells) * len(self.seeds)

    @property
    def recipes(self) -> list[Recipe]:
        """The recipe of each cell."""
        return [cell.recipe for cell in self.cells]

    def trials(self, fingerprints: Fingerprints) -> Iterator[tuple[Cell, Trial]]:
        """Every trial, one seed of all cells before the second of any: a table is there early."""
        by_cell = [cell.trials(self.seeds, fingerprints) for cell in self.cells]
        for row in zip(*by_cell, strict=True):
            yield from ((cell, trial) for cell, (trial, _) in zip(self.cells, row, strict=True))


def load(path: Path, registry: Registry) -> Grid:
    """Read a grid file, resolve every name and check that the question makes sense.

    Raises:
        ConfigError: one line a fault, all at once: an unknown key or name, a wrong type, no cells, two equal cells, a
            condition that no cell meets, a baseline that names no cell or several, a head that needs a stride that the
            backbone lacks, epochs to stop after at which nothing is scored.
    """
    where = str(path)
    file = validate(GridFile, read(path), where)
    resolver = Resolver(registry, where)
    expansion = expand(file, resolver)
    faults = [*file.faults(), *expansion.faults]
    if not expansion.drafts:
        faults.append(f"exclude: leaves no cell of the {expansion.before}; nothing to compare")
    axes = _axes(file, expansion.drafts, resolver)
    cells, unmade = _made(expansion.drafts, axes, resolver)
    baseline, unclear = _baseline(file, expansion.drafts, resolver)
    made = list(cells.values())
    faults += [*checks.twins(made), *unclear, *checks.optimism(file, made), *checks.stops(file, made)]
    lines = [*(f"{where}: {fault}" for fault in faults), *unmade]
    if lines:
        raise ConfigError("\n".join(dict.fromkeys(lines)))
    assert baseline is not None, "told above"
    seeds = tuple(range(file.seeds)) if isinstance(file.seeds, int) else tuple(file.seeds)
    return Grid(path.stem, path, file, tuple(made), cells[baseline], seeds, axes)


def _axes(file: GridFile, drafts: Sequence[Draft], resolver: Resolver) -> tuple[str, ...]:
    """What varies over the cells, in the order of mention: what is under product or zip, and all else that differs."""
    always = {axis for block in file.sets for axis in (*block.product, *block.zip)}
    mentioned = [axis for block in file.sets for axis in (*block.varied, *(block.base if block is not file else ()))]

    def differs(axis: str) -> bool:
        return len({repr(_value(draft, axis, resolver)) for draft in drafts}) > 1

    return tuple(axis for axis in dict.fromkeys(mentioned) if axis in always or differs(axis))


def _value(draft: Draft, axis: str, resolver: Resolver) -> Value:
    """What a cell has for an axis; nothing where it cannot be made, which is told elsewhere."""
    try:
        return resolver.value(draft.said, axis)
    except ConfigError:
        return None


def _made(drafts: Sequence[Draft], axes: Sequence[str], resolver: Resolver) -> tuple[dict[int, Cell], list[str]]:
    """The cells by the places of their drafts, with a value for each axis, and the faults of those that are none."""
    cells: dict[int, Cell] = {}
    faults: dict[str, None] = {}
    for place, draft in enumerate(drafts):
        try:
            cell = resolver.cell(draft.base, draft.axes)
        except ConfigError as error:
            faults |= dict.fromkeys(str(error).splitlines())
        else:
            cells[place] = replace(cell, axes={axis: resolver.value(draft.said, axis) for axis in axes})
    return cells, list(faults)


def _baseline(file: GridFile, drafts: Sequence[Draft], resolver: Resolver) -> tuple[int | None, list[str]]:
    """The place of the baseline, or why there is none; an ablation says it by itself."""
    if file.baseline is None:
        found = [place for place, draft in enumerate(drafts) if draft.untouched]
        return (found[0], []) if len(found) == 1 else (None, [_which(found, drafts)])
    found = [place for place, draft in enumerate(drafts) if resolver.meets(draft.said, file.baseline)]
    if len(found) == 1:
        return found[0], []
    if found:
        return None, [f"baseline: fits {len(found)} cells; say more axes"]
    return None, never_met("baseline", file.baseline, drafts, resolver)


def _which(found: list[int], drafts: Sequence[Draft]) -> str:
    if found:
        return f"baseline: the ablation has {len(found)} untouched cells; say which of them the others are compared to"
    example = next((text(dict(draft.axes)) for draft in drafts if draft.axes), "{}")
    return f"baseline: missing; say which cell the others are compared to, such as {example}"
