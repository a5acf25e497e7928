"""Axes: names of components and fields that vary over the cells of a grid.

An axis is a kind of the registry (`head`), whose values are names of entries; a field of a component
(`recipe.optimizer.lr`), whose values are those of the field; or `init_from`. The end of a field's path is enough where
no other field has it: `recipe.lr`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from types import MappingProxyType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import AfterValidator, BaseModel, PlainSerializer, ValidatorFunctionWrapHandler, WrapValidator

from fcnlab.config.base import Config, models_in, to_plain
from fcnlab.config.registry import KINDS
from fcnlab.config.variant import VARIANT_COMPONENTS
from fcnlab.errors import nearest

COMPONENTS = ("backbone", "head", "upsampler", "dataset", "recipe")
"""The kinds that a cell consists of; a variant is a name for the first three."""

INIT_FROM = "init_from"

SYNONYMS = {"learning_rate": "lr", "wd": "weight_decay", "batchsize": "batch_size"}
"""Names of fields in other programs."""

ABSENT = "–"
"""Value of an axis in a cell without this field, such as the momentum of AdamW."""

Value = bool | int | float | str | list[Any] | dict[str, Any] | None
Overrides = Mapping[str, Value]
"""Values by axis."""


@cache
def fields(kind: str) -> Mapping[str, bool]:
    """List the fields of a kind and the fields inside them, by their paths, such as `optimizer.lr`.

    Args:
        kind: a kind of the registry.

    Returns:
        Whether each field is a mapping with arbitrary keys in one of the kind's models.
    """
    return MappingProxyType(dict(_fields(models_in(KINDS[kind]), "")))


def _fields(models: list[type[BaseModel]], prefix: str) -> Iterator[tuple[str, bool]]:
    inside: dict[str, list[type[BaseModel]]] = {}
    mappings: set[str] = set()
    for model in models:
        for name, field in model.model_fields.items():
            inside.setdefault(name, []).extend(models_in(field.annotation))
            converted = any(isinstance(item, PlainSerializer) for item in field.metadata)  # the classes of a dataset
            if converted or _contains_dict(field.annotation):
                mappings.add(name)
    for name, inner in inside.items():
        yield f"{prefix}{name}", name in mappings
        yield from _fields(list(dict.fromkeys(inner)), f"{prefix}{name}.")


def _contains_dict(annotation: Any) -> bool:
    """Return whether a type is a mapping, or a union with one."""
    return get_origin(annotation) is dict or (
        get_origin(annotation) in (Union, UnionType, Annotated) and any(map(_contains_dict, get_args(annotation)))
    )


@cache
def full_name(axis: str) -> str:
    """Return the full name of an axis.

    Args:
        axis: a full name, or one that ends as exactly one field does.

    Returns:
        The full name, such as `recipe.optimizer.lr`.

    Raises:
        ValueError: there is no such axis, or several fields end like this; the message names the nearest.

    >>> full_name("recipe.lr")
    'recipe.optimizer.lr'
    """
    kind, _, path = axis.partition(".")
    if axis == INIT_FROM or axis in KINDS:
        return axis
    if axis == "start":
        raise ValueError(f"renamed to {INIT_FROM}")
    if kind not in COMPONENTS or not path:
        if suggested := _suggest_fields(axis):
            raise ValueError(f"unknown axis; write {' or '.join(suggested)}")
        valid = [*KINDS, INIT_FROM, *(f"{component}.<field>" for component in COMPONENTS)]
        raise ValueError(f"unknown axis; {nearest(axis, valid)}")
    known = fields(kind)
    first = path.partition(".")[0]
    if first in known:
        _check_path(kind, path)
        return axis
    ends = [field for field in known if field.endswith(f".{path}")]
    if len(ends) > 1:
        raise ValueError(f"several fields end like this; choose one of {', '.join(f'{kind}.{end}' for end in ends)}")
    if ends:
        return f"{kind}.{ends[0]}"
    renamed = _find_renamed(kind)
    if first in renamed:
        raise ValueError(f"renamed to {kind}.{renamed[first]}")
    if first in SYNONYMS:
        raise ValueError(f"a {kind} has no field '{first}'; write {kind}.{SYNONYMS[first]}")
    own = [field for field in known if "." not in field]
    raise ValueError(f"a {kind} has no field '{first}'; {nearest(first, own)}")


def _find_renamed(kind: str) -> dict[str, str]:
    """Return the new names of the fields of a kind by their old names."""
    return {old: new for model in models_in(KINDS[kind]) for old, new in getattr(model, "renamed", {}).items()}


def _suggest_fields(axis: str) -> list[str]:
    """Return the axes whose field is a name without a component, or a synonym or an old name: `recipe.lr` for `lr`."""
    suggested = []
    for component in COMPONENTS:
        known = fields(component)
        name = _find_renamed(component).get(axis, SYNONYMS.get(axis, axis))
        ends = [field for field in known if field.endswith(f".{name}")]
        if "." not in axis and (name in known or len(ends) == 1):
            suggested.append(f"{component}.{name}")
    return suggested


def _check_path(kind: str, path: str) -> None:
    """Check that a path leads to a field, or into one that takes arbitrary keys."""
    known = fields(kind)
    parts = path.split(".")
    for depth in range(1, len(parts)):
        outer, name = ".".join(parts[:depth]), parts[depth]
        inner = [field.removeprefix(f"{outer}.") for field in known if field.startswith(f"{outer}.")]
        if inner and f"{outer}.{name}" not in known and not known[outer]:
            raise ValueError(f"{kind}.{outer} has no field '{name}'; {nearest(name, inner)}")


def full_names(overrides: Overrides) -> dict[str, Value]:
    """Replace the axes of overrides by their full names, also inside `init_from`.

    Args:
        overrides: values by axis.

    Returns:
        The values by the full name of each axis.

    Raises:
        ValueError: an unknown axis, or one that appears under two names; the message begins with the axis.
    """
    check_unique(overrides)
    named = {}
    for axis, value in overrides.items():
        try:
            named[full_name(axis)] = value
        except ValueError as error:
            raise ValueError(f"{axis}: {error}") from None
    return name_init_from(named)


def check_unique(overrides: Mapping[str, Any]) -> None:
    """Check that no axis appears under two names.

    Args:
        overrides: values by axis; unknown axes are ignored.

    Raises:
        ValueError: an axis appears twice.
    """
    seen: dict[str, str] = {}
    for axis in overrides:
        try:
            full = full_name(axis)
        except ValueError:  # an error of its own
            continue
        if full in seen:
            raise ValueError(f"{seen[full]} and {axis} are the same axis; keep one of them")
        seen[full] = axis


def name_init_from(overrides: dict[str, Any]) -> dict[str, Any]:
    """Replace the axes inside `init_from`, which is a mapping, a key, or a list of these under `product`.

    Args:
        overrides: values by axis.

    Returns:
        The overrides with the full names of the axes inside `init_from`.

    Raises:
        ValueError: an unknown axis, or one that appears under two names.
    """
    if INIT_FROM not in overrides:
        return overrides
    value = overrides[INIT_FROM]
    try:
        values = value if isinstance(value, list) else [value]
        named = [full_names(item) if isinstance(item, dict) else item for item in values]
    except ValueError as error:
        raise ValueError(f"{INIT_FROM}: {error}") from None
    return {**overrides, INIT_FROM: named if isinstance(value, list) else named[0]}


def short_names(axes: Iterable[str]) -> dict[str, str]:
    """Return the end of each axis that no other axis has, and that is not the name of a component.

    Args:
        axes: full names.

    >>> short_names(["head", "recipe.ema", "recipe.lr_factors.backbone"])
    {'head': 'head', 'recipe.ema': 'ema', 'recipe.lr_factors.backbone': 'lr_factors.backbone'}
    """
    ends = {axis: [axis.split(".", count)[-1] for count in range(axis.count("."), -1, -1)] for axis in axes}
    counts = Counter(end for of_axis in ends.values() for end in of_axis)

    def is_clear(end: str) -> bool:
        return counts[end] == 1 and end.partition(".")[0] not in KINDS

    return {axis: next(filter(is_clear, of_axis), axis) for axis, of_axis in ends.items()}


def _validate_by_axis(value: Any, validate_mapping: ValidatorFunctionWrapHandler) -> dict[str, Any]:
    """Validate a mapping by axis whose keys are validated as `Axis`."""
    if isinstance(value, dict):
        check_unique({axis: None for axis in value if isinstance(axis, str)})
    return name_init_from(validate_mapping(value))


Axis = Annotated[str, AfterValidator(full_name)]
"""Key of a mapping by axis; becomes the full name."""

ByAxis = WrapValidator(_validate_by_axis)
"""Validator of a mapping with `Axis` keys: no axis twice, and full names inside `init_from` too."""


def merge(lower: Overrides, upper: Overrides) -> dict[str, Value]:
    """Merge two layers of overrides.

    Args:
        lower: values by axis.
        upper: values by axis, which win. A field that is set as a whole discards what `lower` sets inside it, and a
            variant the backbone, head and upsampler of `lower`.

    Returns:
        The merged values by axis.

    >>> merge({"recipe.optimizer.lr": 0.1, "recipe.epochs": 5}, {"recipe.optimizer": {"name": "sgd", "lr": 1}})
    {'recipe.epochs': 5, 'recipe.optimizer': {'name': 'sgd', 'lr': 1}}
    >>> merge({"head": "fcn8s", "dataset": "shapes"}, {"variant": "fcn32s-resnet18"})
    {'dataset': 'shapes', 'variant': 'fcn32s-resnet18'}
    """
    whole = [axis for axis in upper if "." in axis]
    named = VARIANT_COMPONENTS if "variant" in upper else ()
    kept = {
        axis: value
        for axis, value in lower.items()
        if axis not in named and not any(axis.startswith(f"{outer}.") for outer in whole)
    }
    return {**kept, **upper}


def value_at(component: Config, path: str) -> Value:
    """Return the value of a component's field.

    Args:
        component: a backbone, head, upsampler, dataset or recipe.
        path: path of the field, such as `optimizer.lr`.

    Returns:
        A plain value; `ABSENT` where the component has no such field.
    """
    value: Any = component
    for name in path.split("."):
        if isinstance(value, BaseModel):
            value = getattr(value, name) if name in type(value).model_fields else ABSENT
        else:
            value = value.get(name, ABSENT) if isinstance(value, Mapping) else ABSENT
    plain: Value = to_plain(value)
    return plain


def format_value(value: Value) -> str:
    """Format a value for tables and messages.

    Args:
        value: a value of an axis.

    Returns:
        The text.

    >>> format_value({"head": "fcn32s", "upsampler.learned": True})
    '{head: fcn32s, upsampler.learned: true}'
    """
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {format_value(item)}" for key, item in value.items()) + "}"
    return str(value)


def format_name(value: Value) -> str:
    """Format a value for the name of a cell: a component without options is named by its type.

    Args:
        value: a value of an axis.

    Returns:
        The text.

    >>> format_name({"type": "tversky"}), format_name({"type": "tversky", "weight": 0.5})
    ('tversky', '{type: tversky, weight: 0.5}')
    """
    return format_value(value["type"] if isinstance(value, dict) and value.keys() == {"type"} else value)


def overlap(one: str, other: str) -> bool:
    """Return whether two axes are equal or one is inside the other.

    Args:
        one: name of an axis, such as `recipe.optimizer`.
        other: name of another axis.

    >>> overlap("recipe.optimizer", "recipe.optimizer.lr"), overlap("recipe.ema", "recipe.epochs")
    (True, False)
    """
    return one == other or one.startswith(f"{other}.") or other.startswith(f"{one}.")
