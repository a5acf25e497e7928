"""From what a cell says to what it is: names looked up, fields set, parts checked against each other."""

from __future__ import annotations

import re
from functools import cached_property
from typing import Any

from fcnlab.config.base import Config
from fcnlab.config.dataset import Dataset
from fcnlab.config.grid.axes import COMPONENTS, INIT_FROM, Assignment, Value, named, overlay, value_in
from fcnlab.config.grid.cell import Cell
from fcnlab.config.recipe import Recipe
from fcnlab.config.registry import Registry
from fcnlab.config.variant import Backbone, Head, NamedVariant, Upsampler, Variant
from fcnlab.config.yaml_file import validate
from fcnlab.errors import ConfigError, nearest


def resolve(base: Assignment, axes: Assignment, registry: Registry, where: str) -> Cell:
    """Make a cell of what `base` and `axes` say.

    Raises:
        ConfigError: an unknown axis, name or field, a value that does not fit, or a part that is nowhere named.
    """
    try:
        base, axes = named(base), named(axes)
    except ValueError as error:
        raise ConfigError(f"{where}: {error}") from None
    return Resolver(registry, where).cell(base, axes)


class Resolver:
    """Makes cells, and says what they hold before they are made.

    Cells of a grid have most of their parts in common, so each part is made once for all that say the same of it.
    Axes stand by their whole names.
    """

    def __init__(self, registry: Registry, where: str) -> None:
        """`where` begins each message."""
        self._registry = registry
        self._where = where
        self._names: dict[str, dict[str, str]] = {}
        self._parts: dict[tuple[str, str, str], Config] = {}
        self._variants: dict[tuple[int, ...], Variant] = {}

    def cell(self, base: Assignment, axes: Assignment) -> Cell:
        """The cell of what `base` and, on top of it, `axes` say.

        Raises:
            ConfigError: one line a fault, as `resolve`.
        """
        said = overlay(base, axes)
        start = said.pop(INIT_FROM, None)
        names = self._named(said)
        parts, faults = {}, []
        for part in COMPONENTS:
            try:
                parts[part] = self._part(part, names, said)
            except ConfigError as error:
                faults.append(str(error))
        if faults:
            raise ConfigError("\n".join(faults))
        dataset, recipe = parts["dataset"], parts["recipe"]
        assert isinstance(dataset, Dataset) and isinstance(recipe, Recipe)
        return Cell(axes, self._variant(parts, names), dataset, recipe, names, self._start(start, said))

    def value(self, said: Assignment, axis: str) -> Value:
        """What a cell that says this has for an axis: as it is said, else as the catalogue has it.

        Raises:
            ConfigError: the part that the axis belongs to cannot be made.
        """
        if axis in said and not any(other.startswith(f"{axis}.") for other in said):
            return said[axis]
        return None if axis == INIT_FROM else self._held(said, axis)

    def meets(self, said: Assignment, condition: Assignment) -> bool:
        """Whether a cell that says this holds what a condition asks for; what cannot be made holds nothing."""
        return all(self._is(said, axis, wanted) for axis, wanted in condition.items())

    def has(self, said: Assignment, axis: str, value: Value) -> bool:
        """Whether a cell that says this has a value for an axis, as it is said or as it comes out."""
        if axis in said and said[axis] == value:
            return True
        try:  # the fault, if it is one, is told when the cell is made
            return axis != INIT_FROM and self._held(said, axis) == value
        except ConfigError:
            return False

    def _is(self, said: Assignment, axis: str, wanted: Value) -> bool:
        one_of = wanted if isinstance(wanted, list) else []
        return self.has(said, axis, wanted) or any(self.has(said, axis, value) for value in one_of)

    def _held(self, said: Assignment, axis: str) -> Value:
        kind, _, path = axis.partition(".")
        names = self._named(said)
        return value_in(self._part(kind, names, said), path) if path else names[kind]

    def _named(self, said: Assignment) -> dict[str, str]:
        """What the parts of a cell are called; a variant names the parts that are not named themselves."""
        kinds = {kind: said[kind] for kind in ("variant", *COMPONENTS) if kind in said}
        key = repr(kinds)
        if key not in self._names:
            self._names[key] = self._names_of(kinds)
        return self._names[key]

    def _names_of(self, said: Assignment) -> dict[str, str]:
        names: dict[str, Any] = {}
        if "variant" in said:
            entry = self._registry.get("variant", said["variant"], f"{self._where}: variant")  # type: ignore[arg-type]
            assert isinstance(entry, NamedVariant)
            names = {"backbone": entry.backbone, "head": entry.head, "upsampler": entry.upsampler}
        names |= {part: said[part] for part in COMPONENTS if part in said}
        missing = [part for part in COMPONENTS if part not in names]
        if missing:
            raise ConfigError("\n".join(map(self._unnamed, missing)))
        own = "-".join(str(names[part]) for part in ("head", "backbone", "upsampler"))
        overruled = any(part in said for part in COMPONENTS[:3])
        names["variant"] = own if overruled or "variant" not in said else said["variant"]
        return names

    def _unnamed(self, part: str) -> str:
        remedy = "name it under base or product" + (", or give a variant" if part in COMPONENTS[:3] else "")
        return f"{self._where}: {part}: nothing says which; {remedy}; {nearest('', self._registry.names(part))}"

    def _part(self, part: str, names: Assignment, said: Assignment) -> Config:
        """The catalogue's entry, with the fields that the cell sets otherwise; the more special wins."""
        changes = {axis: said[axis] for axis in said if axis.startswith(f"{part}.")}
        key = (part, repr(names[part]), repr(changes))
        if key not in self._parts:
            self._parts[key] = self._make_part(part, names[part], changes)
        return self._parts[key]

    def _make_part(self, part: str, name: Any, changes: Assignment) -> Config:
        entry = self._registry.get(part, name, f"{self._where}: {part}")
        if not changes:
            return entry
        content = entry.model_dump(exclude_unset=True)
        for axis in sorted(changes, key=lambda axis: axis.count(".")):
            *outer, last = axis.split(".")[1:]
            place = content
            for key in outer:
                inner = place.get(key)
                place[key] = dict(inner) if isinstance(inner, dict) else {}
                place = place[key]
            place[last] = changes[axis]
        return validate(type(entry), content, f"{self._where}: {', '.join(changes)}: {part}")

    def _variant(self, parts: dict[str, Config], names: Assignment) -> Variant:
        together = {part: parts[part] for part in ("backbone", "head", "upsampler")}
        key = tuple(map(id, together.values()))
        if key not in self._variants:
            backbone, head, upsampler = together.values()
            assert isinstance(backbone, Backbone) and isinstance(head, Head) and isinstance(upsampler, Upsampler)
            missing = [stride for stride in head.needs if stride not in backbone.reductions]
            if missing:
                raise ConfigError(
                    f"{self._where}: head {names['head']} needs stride {missing[0]}, which backbone "
                    f"{names['backbone']} lacks; it has {', '.join(map(str, backbone.reductions))}"
                )
            self._variants[key] = validate(Variant, together, f"{self._where}: {names['variant']}")
        return self._variants[key]

    def _start(self, start: Value, said: Assignment) -> Cell | str | None:
        """The cell that another starts from: what that one says, but for what `start` says otherwise."""
        if start is None:
            return None
        if isinstance(start, str):
            if re.fullmatch("[0-9a-f]{64}", start) is None:
                raise ConfigError(
                    f"{self._where}: init_from: {start!r} is not the key of a trial, which has 64 digits from 0 to f"
                )
            return start
        if not isinstance(start, dict) or not start:
            raise ConfigError(
                f"{self._where}: init_from: say what the trial to start from says otherwise, such as {{head: fcn32s}}"
            )
        return self._before.cell(said, start)

    @cached_property
    def _before(self) -> Resolver:
        """Makes what cells start from."""
        return Resolver(self._registry, f"{self._where}: init_from")
