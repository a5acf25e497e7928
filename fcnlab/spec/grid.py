"""A grid is a question: a set of cells and seeds, a metric, a baseline.

    question: What do skips buy on thin structures?
    base:     {backbone: resnet18, upsampler: bilinear, dataset: camvid, recipe: standard}
    product:  {head: [fcn32s, fcn16s, fcn8s]}
    seeds:    3
    baseline: {head: fcn32s}

An axis is a kind of the catalogue (`head`), whose values are names, or a field of one (`recipe.epochs`), whose
values are what that field may hold. `variant` gives backbone, head and upsampler at once; the more special wins.

`start` says from which finished trial a cell starts: what that trial says otherwise than the cell, such as
`start: {head: fcn32s}` for staged training, or the key of any trial that this lab has finished. A trial that is needed
so is run first, with the same seed.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from fcnlab.errors import SpecError, nearest
from fcnlab.spec.catalog import KINDS, Catalog
from fcnlab.spec.config import (
    Backbone,
    Config,
    Count,
    Dataset,
    Head,
    NamedVariant,
    Recipe,
    Upsampler,
    Variant,
    Whole,
)
from fcnlab.spec.files import check, read
from fcnlab.spec.stop import Stop
from fcnlab.spec.trial import Trial

PARTS = ("backbone", "head", "upsampler", "dataset", "recipe")
"""The kinds that a cell is made of; a variant is a name for the first three."""

START = "start"

Value = bool | int | float | str | list[Any] | dict[str, Any] | None
Assignment = Mapping[str, Value]
Fingerprints = Callable[[Variant, Dataset], tuple[str, str | None]]
"""Gives the content fingerprints of a dataset and of a variant's weights file."""


class GridFile(Config):
    """What a grid file may say."""

    question: Annotated[str, Field(min_length=1)]
    about: str = ""
    base: dict[str, Value] = Field(default_factory=dict)
    product: dict[str, Annotated[list[Value], Field(min_length=1)]] = Field(default_factory=dict)
    exclude: list[dict[str, Value | list[Value]]] = Field(default_factory=list)
    seeds: Count | Annotated[list[Whole], Field(min_length=1)] = 1
    baseline: dict[str, Value]
    select: Literal["last", "best"] = "last"
    stop: Stop | None = None


@dataclass(frozen=True)
class Cell:
    """One row of a table: what varies, and the configuration that follows from it."""

    axes: Assignment
    variant: Variant
    dataset: Dataset
    recipe: Recipe
    names: Mapping[str, str]
    start: Cell | str | None = None

    @property
    def label(self) -> str:
        """The values of the axes, such as `fcn8s, random`."""
        return ", ".join(_text(value) for value in self.axes.values()) or self.names["variant"]

    def trial(self, seed: int, fingerprints: Fingerprints) -> Trial:
        """The trial of this cell with a seed."""
        data, weights = fingerprints(self.variant, self.dataset)
        start = self.start.trial(seed, fingerprints).key if isinstance(self.start, Cell) else self.start
        return Trial(
            variant=self.variant,
            dataset=self.dataset,
            recipe=self.recipe,
            seed=seed,
            names=dict(self.names),
            data=data,
            weights=weights,
            start=start,
        )

    def content(self) -> tuple[Any, ...]:
        """What makes this cell another than the next, as plain values."""
        start = self.start.content() if isinstance(self.start, Cell) else self.start
        return self.variant.content(), self.dataset.content(), self.recipe.content(), start


@dataclass(frozen=True)
class Grid:
    """A question, checked: its cells, its seeds, the baseline among the cells."""

    name: str
    path: Path
    file: GridFile
    cells: tuple[Cell, ...]
    baseline: Cell
    seeds: tuple[int, ...] = field(default=(0,))

    def __len__(self) -> int:
        """How many trials the grid has."""
        return len(self.cells) * len(self.seeds)

    @property
    def recipes(self) -> list[Recipe]:
        """The recipe of each cell."""
        return [cell.recipe for cell in self.cells]

    def trials(self, fingerprints: Fingerprints) -> Iterator[tuple[Cell, Trial]]:
        """Every trial, one seed of all cells before the second of any: a table is there early."""
        for seed, cell in itertools.product(self.seeds, self.cells):
            yield cell, cell.trial(seed, fingerprints)


def load(path: Path, catalog: Catalog) -> Grid:
    """Read a grid file, resolve every name and check that the question makes sense.

    Raises:
        SpecError: one line a fault: an unknown key or name, a wrong type, no cells, two equal cells, a baseline
            that names no cell or several, a head that needs a stride that the backbone lacks.
    """
    file = check(GridFile, read(path), str(path))
    where = str(path)
    both = sorted(set(file.base) & set(file.product))
    if both:
        raise SpecError(f"{where}: {both[0]}: stands under base and under product; keep one of them")
    cells = tuple(
        resolve(file.base, axes, catalog, where)
        for axes in _product(file.product)
        if not any(_matches({**file.base, **axes}, rule) for rule in _rules(file, where))
    )
    if not cells:
        raise SpecError(
            f"{where}: exclude: leaves no cell of the {len(list(_product(file.product)))}; nothing to compare"
        )
    _refuse_twins(cells, where)
    seeds = tuple(range(file.seeds)) if isinstance(file.seeds, int) else tuple(file.seeds)
    if len(set(seeds)) < len(seeds):
        raise SpecError(f"{where}: seeds: a seed stands twice in {list(seeds)}")
    _refuse_optimism(file, cells, where)
    return Grid(path.stem, path, file, cells, _baseline(file, cells, where), seeds)


def resolve(base: Assignment, axes: Assignment, catalog: Catalog, where: str) -> Cell:
    """Make a cell of what `base` and `axes` say.

    Raises:
        SpecError: an unknown axis, name or field, a value that does not fit, or a part that is nowhere named.
    """
    said = {**base, **axes}
    start = said.pop(START, None)
    for axis in said:
        _check_axis(axis, where)
    names = _names(said, catalog, where)
    parts = {part: _entry(part, names[part], said, catalog, where) for part in PARTS}
    backbone, head, dataset, recipe = parts["backbone"], parts["head"], parts["dataset"], parts["recipe"]
    assert isinstance(backbone, Backbone) and isinstance(head, Head)
    assert isinstance(dataset, Dataset) and isinstance(recipe, Recipe)
    missing = [stride for stride in head.needs if stride not in backbone.reductions]
    if missing:
        raise SpecError(
            f"{where}: head {names['head']} needs stride {missing[0]}, which backbone {names['backbone']} lacks; "
            f"it has {', '.join(map(str, backbone.reductions))}"
        )
    upsampler = parts["upsampler"]
    assert isinstance(upsampler, Upsampler)
    together = {"backbone": backbone, "head": head, "upsampler": upsampler}
    variant = check(Variant, together, f"{where}: {names['variant']}")
    return Cell(axes, variant, dataset, recipe, names, _start(start, said, catalog, where))


def _start(start: Value, said: Assignment, catalog: Catalog, where: str) -> Cell | str | None:
    """The cell that another starts from: what that one says, but for what `start` says otherwise."""
    if start is None:
        return None
    if isinstance(start, str):
        if re.fullmatch("[0-9a-f]{64}", start) is None:
            raise SpecError(f"{where}: start: {start!r} is not the key of a trial, which has 64 digits from 0 to f")
        return start
    if not isinstance(start, dict) or not start:
        raise SpecError(f"{where}: start: say what the trial to start from says otherwise, such as {{head: fcn32s}}")
    return resolve(said, start, catalog, f"{where}: start")


def _check_axis(axis: str, where: str) -> None:
    kind, _, key = axis.partition(".")
    if kind not in KINDS or (kind == "variant" and key):
        raise SpecError(
            f"{where}: {axis}: no such axis; {nearest(axis, [*KINDS, START, *(f'{p}.<field>' for p in PARTS)])}"
        )
    name = key.partition(".")[0]
    if key and name not in KINDS[kind].model_fields:
        raise SpecError(f"{where}: {axis}: a {kind} has no field '{name}'; {nearest(name, KINDS[kind].model_fields)}")


def _names(said: Assignment, catalog: Catalog, where: str) -> dict[str, str]:
    """What the parts of the cell are called; a variant names the parts that are not named themselves."""
    names: dict[str, str] = {}
    if "variant" in said:
        entry = catalog.get("variant", said["variant"], f"{where}: variant")  # type: ignore[arg-type]
        assert isinstance(entry, NamedVariant)
        names = {"backbone": entry.backbone, "head": entry.head, "upsampler": entry.upsampler}
    names |= {part: said[part] for part in PARTS if part in said}  # type: ignore[misc]
    missing = [part for part in PARTS if part not in names]
    if missing:
        remedy = "name it under base or product" + (", or give a variant" if missing[0] in PARTS[:3] else "")
        raise SpecError(
            f"{where}: {missing[0]}: nothing says which; {remedy}; {nearest('', catalog.names(missing[0]))}"
        )
    own = "-".join(str(names[part]) for part in ("head", "backbone", "upsampler"))
    overruled = any(part in said for part in PARTS[:3])
    names["variant"] = own if overruled or "variant" not in said else str(said["variant"])
    return names


def _entry(part: str, name: str, said: Assignment, catalog: Catalog, where: str) -> Config:
    """The catalogue's entry, with the fields that the cell sets otherwise."""
    entry = catalog.get(part, name, f"{where}: {part}")
    changes = {axis: value for axis, value in said.items() if axis.startswith(f"{part}.")}
    if not changes:
        return entry
    content = entry.model_dump(exclude_unset=True)
    for axis, value in changes.items():
        *outer, last = axis.split(".")[1:]
        place = content
        for key in outer:
            inner = place.get(key)
            place[key] = inner if isinstance(inner, dict) else {}
            place = place[key]
        place[last] = value
    return check(type(entry), content, f"{where}: {', '.join(changes)}: {part}")


def _product(axes: Mapping[str, list[Value]]) -> Iterator[dict[str, Value]]:
    for values in itertools.product(*axes.values()):
        yield dict(zip(axes, values, strict=True))


def _rules(file: GridFile, where: str) -> list[dict[str, Value | list[Value]]]:
    said = {**file.base, **file.product}
    for rule in file.exclude:
        for axis, value in rule.items():
            if axis not in said:
                raise SpecError(f"{where}: exclude: {axis}: not an axis of this grid; {nearest(axis, said)}")
            known = file.product.get(axis, [file.base.get(axis)])
            named = value if isinstance(value, list) and value not in known else [value]
            strange = [v for v in named if v not in known]
            if strange:
                listing = nearest(_text(strange[0]), map(_text, known))
                raise SpecError(f"{where}: exclude: {axis}: {_text(strange[0])} is no value of this axis; {listing}")
    return file.exclude


def _matches(said: Assignment, rule: Mapping[str, Any]) -> bool:
    return all(said[axis] == v or (isinstance(v, list) and said[axis] in v) for axis, v in rule.items())


def _refuse_twins(cells: tuple[Cell, ...], where: str) -> None:
    seen: dict[str, Cell] = {}
    for cell in cells:
        content = repr(cell.content())
        if content in seen:
            raise SpecError(f"{where}: product: the cells '{seen[content].label}' and '{cell.label}' are the same")
        seen[content] = cell


def _refuse_optimism(file: GridFile, cells: tuple[Cell, ...], where: str) -> None:
    """An epoch chosen on the very images that are reported makes every figure too good."""
    untested = [cell for cell in cells if cell.dataset.splits.test is None]
    if file.select == "best" and untested:
        raise SpecError(
            f"{where}: select: 'best' chooses the epoch on val, and dataset {untested[0].names['dataset']} has no test "
            "split to report on; use select: last"
        )


def _baseline(file: GridFile, cells: tuple[Cell, ...], where: str) -> Cell:
    for axis in file.baseline:
        if axis not in file.product and axis not in file.base:
            raise SpecError(
                f"{where}: baseline: {axis}: not an axis of this grid; {nearest(axis, {**file.base, **file.product})}"
            )
    found = [cell for cell in cells if _matches({**file.base, **cell.axes}, file.baseline)]
    if len(found) != 1:
        which = "names no cell" if not found else f"fits {len(found)} cells; say more axes"
        raise SpecError(f"{where}: baseline: {which}; {nearest('', (cell.label for cell in cells))}")
    return found[0]


def _text(value: Value) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_text(item)}" for key, item in value.items()) + "}"
    return str(value)
