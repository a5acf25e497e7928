"""From overrides to cells and back: look up names, set fields, check components against each other."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any, cast

from fcnlab.config.base import Config, find_member, models_in
from fcnlab.config.dataset import AnyDataset
from fcnlab.config.grid.axes import (
    ABSENT,
    COMPONENTS,
    INIT_FROM,
    Overrides,
    Value,
    format_value,
    full_names,
    merge,
    value_at,
)
from fcnlab.config.grid.cell import Cell
from fcnlab.config.head import Head
from fcnlab.config.recipe import Recipe
from fcnlab.config.registry import KINDS, Registry
from fcnlab.config.validation import validate
from fcnlab.config.variant import DEFAULT_UPSAMPLER, VARIANT_COMPONENTS, Backbone, Variant
from fcnlab.errors import ConfigError, nearest


def resolve(overrides: Overrides, registry: Registry, where: str) -> Cell:
    """Make a cell of overrides.

    Args:
        overrides: values by axis, by full or short names.
        registry: the components.
        where: start of error messages.

    Returns:
        The cell, without axes.

    Raises:
        ConfigError: an unknown axis, name or field, an invalid value, or a component that is not given.
    """
    try:
        return Candidate(full_names(overrides), {}, registry, where).cell()
    except ValueError as error:
        raise ConfigError(f"{where}: {error}") from None


class Candidate:
    """A cell before it is resolved; its overrides may prove invalid.

    Attributes:
        base: overrides that other cells have too, such as those of the block.
        axes: overrides on top of `base`.
        unchanged: whether it is the cell of an ablation to which the others are compared.
    """

    def __init__(self, base: Overrides, axes: Overrides, registry: Registry, where: str, unchanged: bool = False):
        """Axes are full names; `where` is the start of error messages."""
        self.base, self.axes, self.unchanged = base, axes, unchanged
        self._registry, self._where = registry, where
        self._components: dict[str, Config] = {}

    def without(self, axis: str) -> Candidate:
        """Return the same candidate without an override on top of `base`.

        Args:
            axis: one of `axes`.

        Returns:
            The other candidate.
        """
        axes = {other: value for other, value in self.axes.items() if other != axis}
        return Candidate(self.base, axes, self._registry, self._where, self.unchanged)

    @cached_property
    def overrides(self) -> dict[str, Value]:
        """All overrides of the cell."""
        return merge(self.base, self.axes)

    @cached_property
    def names(self) -> dict[str, str]:
        """Names of the components; a variant names those that are not given otherwise.

        Raises:
            ConfigError: an unknown variant, or a component without a name, except for the upsampler, which has a
                default.
        """
        given = {component: self.overrides[component] for component in COMPONENTS if component in self.overrides}
        unnamed = [
            f"{self._where}: {kind}: {_explain_name(kind, self.overrides[kind])}"
            for kind in (*COMPONENTS, "variant")
            if isinstance(self.overrides.get(kind), dict | list)
        ]
        if unnamed:
            raise ConfigError("\n".join(unnamed))
        names: dict[str, Any] = {"upsampler": DEFAULT_UPSAMPLER} | given
        if "variant" in self.overrides:
            entry = self._registry.get("variant", self.overrides["variant"], f"{self._where}: variant")
            names = {component: getattr(entry, component) for component in VARIANT_COMPONENTS} | given
        missing = [component for component in COMPONENTS if component not in names]
        if missing:
            raise ConfigError("\n".join(map(self._describe_missing, missing)))
        if "variant" in self.overrides and given.keys().isdisjoint(VARIANT_COMPONENTS):
            return {**names, "variant": str(self.overrides["variant"])}
        return {**names, "variant": "-".join(str(names[component]) for component in ("head", "backbone", "upsampler"))}

    def component(self, component: str) -> Config:
        """Return a component: the registry's entry with the fields that are overridden.

        Args:
            component: one of `COMPONENTS`.

        Returns:
            The component's configuration.

        Raises:
            ConfigError: an unknown name or an invalid field.
        """
        if component not in self._components:
            self._components[component] = self._make(component)
        return self._components[component]

    def value(self, axis: str) -> Value:
        """Return the value of an axis: its override, else the value of the resolved component.

        Args:
            axis: full name of the axis.

        Returns:
            The value.

        Raises:
            ConfigError: the component of the axis is invalid.
        """
        if axis in self.overrides and not any(other.startswith(f"{axis}.") for other in self.overrides):
            return self.overrides[axis]
        return None if axis == INIT_FROM else self._resolved(axis)

    def has(self, axis: str, value: Value) -> bool:
        """Return whether the cell has a value on an axis, as it is given or as it is resolved.

        Args:
            axis: full name of the axis.
            value: the value; None also matches a field that the component does not have, and a variant a cell with its
                components.

        Returns:
            Whether it has the value; False if the component is invalid.
        """
        if axis == "variant":
            return self._has_variant(value)
        if axis == INIT_FROM or (axis in self.overrides and are_equal(self.overrides[axis], value)):
            return are_equal(self.overrides.get(axis), value)
        try:
            resolved = self._resolved(axis)
        except ConfigError:  # reported when the cell is made
            return False
        return are_equal(resolved, value) or (value is None and resolved == ABSENT)

    def _has_variant(self, name: Value) -> bool:
        if not isinstance(name, str):
            return False
        try:
            entry = self._registry.get("variant", name, self._where)
            return all(self.names[component] == getattr(entry, component) for component in VARIANT_COMPONENTS)
        except ConfigError:  # reported when the cell is made, or as a condition that no cell meets
            return False

    def meets(self, condition: Overrides) -> bool:
        """Return whether the cell meets a condition.

        Args:
            condition: values by axis; a list is met by any of its values.

        Returns:
            Whether the cell has a matching value on every axis of the condition.
        """
        return all(
            self.has(axis, wanted) or (isinstance(wanted, list) and any(self.has(axis, value) for value in wanted))
            for axis, wanted in condition.items()
        )

    def sets_as(self, other: Candidate, axis: str) -> bool:
        """Return whether two candidates set an axis in the same way, or both do not set it.

        The resolved values may differ nevertheless, since they depend on other overrides: `head` determines
        `head.stride`.

        Args:
            other: another candidate.
            axis: full name of the axis.
        """
        layers = ((self.base, other.base), (self.axes, other.axes))
        return all(are_equal(one.get(axis, ABSENT), two.get(axis, ABSENT)) for one, two in layers)

    def cell(self) -> Cell:
        """Return the cell.

        Returns:
            The cell, with `axes` as its axes.

        Raises:
            ConfigError: one error per line: an unknown name, an invalid value, components that do not fit together.
        """
        names, components, errors = self.names, {}, []
        for component in COMPONENTS:
            try:
                components[component] = self.component(component)
            except ConfigError as error:
                errors.append(str(error))
        if errors:
            raise ConfigError("\n".join(errors))
        dataset, recipe = cast(AnyDataset, components.pop("dataset")), cast(Recipe, components.pop("recipe"))
        self._check_micro_batch(cast(Head, components["head"]), recipe)
        return Cell(self.axes, self._variant(components), dataset, recipe, names, self._init_from())

    def _resolved(self, axis: str) -> Value:
        kind, _, path = axis.partition(".")
        return value_at(self.component(kind), path) if path else self.names[kind]

    def _describe_missing(self, component: str) -> str:
        remedy = "name it under base or product"
        remedy += ", or give a variant" if component in VARIANT_COMPONENTS else ""
        return f"{self._where}: {component}: missing; {remedy}; {nearest('', self._registry.names(component))}"

    def _make(self, component: str) -> Config:
        entry = self._registry.get(component, self.names[component], f"{self._where}: {component}")
        changes = {axis: value for axis, value in self.overrides.items() if axis.startswith(f"{component}.")}
        if not changes:
            return entry
        content = entry.model_dump(exclude_unset=True)
        model = find_member(models_in(KINDS[component]), str(changes.get(f"{component}.type")))
        if f"{component}.type" in changes and model is not None:  # another type keeps the fields that it has too
            content = {name: value for name, value in content.items() if name in model.model_fields}
        for axis in sorted(changes, key=lambda axis: axis.count(".")):  # the more specific override wins
            *outer, last = axis.split(".")[1:]
            mapping = content
            for name in outer:
                inner = mapping.get(name)
                mapping[name] = dict(inner) if isinstance(inner, dict) else {}
                mapping = mapping[name]
            mapping[last] = changes[axis]
        return validate(KINDS[component], content, self._where, component)

    def _check_micro_batch(self, head: Head, recipe: Recipe) -> None:
        images = recipe.batch_size // recipe.grad_accum_steps
        if images < head.min_images:
            raise ConfigError(
                f"{self._where}: head {self.names['head']} needs {head.min_images} images per micro-batch, and recipe "
                f"{self.names['recipe']} has {images}; set recipe.batch_size to at least "
                f"{head.min_images * recipe.grad_accum_steps}, or lower recipe.grad_accum_steps"
            )

    def _variant(self, components: dict[str, Config]) -> Variant:
        backbone, head = components["backbone"], components["head"]
        assert isinstance(backbone, Backbone) and isinstance(head, Head)
        missing = [stride for stride in head.needs if stride not in backbone.reductions]
        if missing:
            raise ConfigError(
                f"{self._where}: head {self.names['head']} needs stride {missing[0]}, which backbone "
                f"{self.names['backbone']} lacks; it has {', '.join(map(str, backbone.reductions))}"
            )
        return validate(Variant, components, f"{self._where}: {self.names['variant']}")

    def _init_from(self) -> Cell | str | None:
        """Return the cell that the `init_from` overrides describe, or the given trial key; None without `init_from`."""
        value, where = self.overrides.get(INIT_FROM), f"{self._where}: {INIT_FROM}"
        if value is None:
            return None
        if isinstance(value, str):
            if re.fullmatch("[0-9a-f]{64}", value) is None:
                raise ConfigError(f"{where}: {value!r} is not the key of a trial, which has 64 digits from 0 to f")
            return value
        if not isinstance(value, dict) or not value:
            raise ConfigError(
                f"{where}: give overrides that turn the cell into the trial to initialize from, such as "
                "{head: fcn32s}, or the key of a finished trial"
            )
        others = {axis: other for axis, other in self.overrides.items() if axis != INIT_FROM}
        return Candidate(others, value, self._registry, where).cell()


def _explain_name(kind: str, value: Value) -> str:
    """Return the error of a mapping or list in place of the name of an entry."""
    if isinstance(value, list):
        names = ", ".join(map(format_value, value))
        return f"give one name, or the list under product: `product: {{{kind}: [{names}]}}`"
    assert isinstance(value, dict)
    name = value.get("name", "NAME")
    fields = [f"`{kind}.{field}: {format_value(item)}`" for field, item in value.items() if field != "name"]
    lines = " and ".join([f"`{kind}: {format_value(name)}`", *fields])
    return f"give the name of an entry, not a mapping; write {lines}"


def are_equal(one: Value, other: Value) -> bool:
    """Return whether two values of an axis are equal: 0 equals 0.0, but the number 1 is not `true`.

    Args:
        one: a value.
        other: another value.
    """
    return one == other and isinstance(one, bool) == isinstance(other, bool)


def to_overrides(cell: Cell, registry: Registry) -> dict[str, Value]:
    """Return overrides that `resolve` makes the same cell of; independent of the grid that the cell comes from.

    Args:
        cell: a cell.
        registry: the registry that its names refer to.

    Returns:
        The name of each component, and the fields that differ from the registry's entry, by axis: `{"backbone":
        "resnet18", ..., "recipe": "quick", "recipe.epochs": 5, "init_from": {"head": "fcn32s"}}`.
    """
    overrides: dict[str, Value] = {component: cell.names[component] for component in COMPONENTS}
    for component, config in _components(cell).items():
        overrides |= dict(_differences(component, registry.get(component, cell.names[component]), config))
    if isinstance(cell.init_from, Cell):
        overrides[INIT_FROM] = _init_overrides(cell.init_from, overrides, registry)
    elif cell.init_from is not None:
        overrides[INIT_FROM] = cell.init_from
    return overrides


def _init_overrides(earlier: Cell, overrides: Mapping[str, Value], registry: Registry) -> dict[str, Value]:
    """Return the overrides of an earlier cell that differ from those of the cell that is initialized from it.

    Args:
        earlier: the earlier cell.
        overrides: the overrides of the other cell, which apply to the earlier cell, too.
        registry: the registry.
    """
    own = to_overrides(earlier, registry)
    components = _components(earlier)
    for axis in [axis for axis in overrides if axis not in own]:
        component, _, path = axis.partition(".")
        value = value_at(components[component], path)
        if value != ABSENT:  # `own` sets the mapping around an absent field as a whole
            own[axis] = value
    different = {axis: value for axis, value in own.items() if axis not in overrides or overrides[axis] != value}
    return different or own  # an empty mapping is not valid


def _components(cell: Cell) -> dict[str, Config]:
    variant = cell.variant
    configs = (variant.backbone, variant.head, variant.upsampler, cell.dataset, cell.recipe)
    return dict(zip(COMPONENTS, configs, strict=True))


def _differences(axis: str, entry: Config, config: Config) -> Iterator[tuple[str, Value]]:
    """Yield the fields that differ from the entry's, by axis; descriptions are ignored."""
    plain = config.model_dump(mode="json")
    for name in type(config).model_fields:
        before, now = getattr(entry, name, ABSENT), getattr(config, name)
        if name == "description" or before == now:
            continue
        if isinstance(now, Config) and isinstance(before, Config) and type(before) is type(now):
            yield from _differences(f"{axis}.{name}", before, now)
        else:
            yield f"{axis}.{name}", now.content() if isinstance(now, Config) else plain[name]
