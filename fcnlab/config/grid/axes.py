"""Axes: what may differ from cell to cell, and by what name.

An axis is a kind of the catalogue (`head`), whose values are names, a field of one (`recipe.optimizer.lr`), whose
values are what that field may hold, or `start`. A field may be named by its end where only one has it: `recipe.lr`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from types import MappingProxyType
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator

from fcnlab.config.base import Config
from fcnlab.config.registry import KINDS
from fcnlab.config.yaml_file import models_in
from fcnlab.errors import nearest

COMPONENTS = ("backbone", "head", "upsampler", "dataset", "recipe")
"""The kinds that a cell is made of; a variant is a name for the first three."""

INIT_FROM = "init_from"

ABSENT = "–"
"""What an axis has in a cell that has no such field, such as the momentum of AdamW."""

Value = bool | int | float | str | list[Any] | dict[str, Any] | None
Assignment = Mapping[str, Value]


@cache
def fields(kind: str) -> Mapping[str, tuple[type[BaseModel], ...]]:
    """The fields of a part and of what they hold, by their paths, such as `optimizer.lr`; with the models inside."""
    return MappingProxyType(dict(_fields((KINDS[kind],), "")))


def _fields(models: Iterable[type[BaseModel]], before: str) -> Iterator[tuple[str, tuple[type[BaseModel], ...]]]:
    inside: dict[str, list[type[BaseModel]]] = {}
    for model in models:
        for name, field in model.model_fields.items():
            inside.setdefault(name, []).extend(models_in(field.annotation))
    for name, inner in inside.items():
        yield f"{before}{name}", tuple(dict.fromkeys(inner))
        yield from _fields(dict.fromkeys(inner), f"{before}{name}.")


@cache
def full_name(axis: str) -> str:
    """The whole name of an axis.

    Raises:
        ValueError: there is no such axis, or several have this end; the message says what is nearest.
    """
    kind, _, path = axis.partition(".")
    if axis == INIT_FROM or axis in KINDS:
        return axis
    if axis == "start":
        raise ValueError(f"start was renamed to {INIT_FROM}")
    if kind not in COMPONENTS or not path:
        raise ValueError(
            f"no such axis; {nearest(axis, [*KINDS, INIT_FROM, *(f'{part}.<field>' for part in COMPONENTS)])}"
        )
    known = fields(kind)
    first = path.partition(".")[0]
    if first in KINDS[kind].renamed:
        raise ValueError(f"{kind}.{first} was renamed to {kind}.{KINDS[kind].renamed[first]}")
    if first in known:
        _check_path(kind, path)
        return axis
    ends = [field for field in known if field.endswith(f".{path}")]
    if len(ends) > 1:
        raise ValueError(f"several fields have this name; say which: {', '.join(f'{kind}.{field}' for field in ends)}")
    if not ends:
        own = [field for field in known if "." not in field]
        raise ValueError(f"a {kind} has no field '{first}'; {nearest(first, own)}")
    return f"{kind}.{ends[0]}"


def _check_path(kind: str, path: str) -> None:
    """Check that a path leads to a field, or below one that takes keys of any name."""
    known = fields(kind)
    parts = path.split(".")
    for depth in range(1, len(parts)):
        outer, name = ".".join(parts[:depth]), parts[depth]
        if known.get(outer) and f"{outer}.{name}" not in known:
            inner = [field.removeprefix(f"{outer}.") for field in known if field.startswith(f"{outer}.")]
            raise ValueError(f"{kind}.{outer} has no field '{name}'; {nearest(name, inner)}")


def overlay(said: Assignment, more: Assignment) -> dict[str, Value]:
    """What is said once `more` is said on top: of a field that it sets nothing remains that lay inside."""
    kept = {
        axis: value
        for axis, value in said.items()
        if not any(axis.startswith(f"{outer}.") for outer in more if "." in outer)
    }
    return {**kept, **more}


def value_in(part: Config, path: str) -> Value:
    """What a part of a cell holds at a path, as plain values; `ABSENT` where it has no such field."""
    held: Any = part
    for name in path.split("."):
        if isinstance(held, BaseModel):
            held = getattr(held, name, ABSENT)
        else:
            held = held.get(name, ABSENT) if isinstance(held, Mapping) else ABSENT
    return _plain(held)


def _plain(held: Any) -> Any:
    if isinstance(held, Config):
        return held.content()
    return [_plain(item) for item in held] if isinstance(held, tuple) else held


def text(value: Value) -> str:
    """A value as tables and messages show it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {text(item)}" for key, item in value.items()) + "}"
    return str(value)


def _said_once(said: Any) -> Any:
    """Refuse two names of one axis; names that are none are told later, each by itself."""
    seen: dict[str, str] = {}
    for axis in said if isinstance(said, dict) else ():
        try:
            full = full_name(axis)
        except (ValueError, AttributeError):
            continue
        if full in seen:
            raise ValueError(f"{seen[full]} and {axis} are the same axis; keep one of them")
        seen[full] = axis
    return said


def _in_full(said: dict[str, Any]) -> dict[str, Any]:
    """What a cell starts from is said by axes too, which may be lists of alternatives under `product`."""
    start = said.get(INIT_FROM)
    alternatives = start if isinstance(start, list) else [start]
    try:
        in_full = [named(one) if isinstance(one, dict) else one for one in alternatives]
    except ValueError as error:
        raise ValueError(f"{INIT_FROM}: {error}") from None
    if INIT_FROM in said:
        return {**said, INIT_FROM: in_full if isinstance(start, list) else in_full[0]}
    return said


def named(said: Assignment) -> dict[str, Value]:
    """The same with every axis by its whole name.

    Raises:
        ValueError: as `full_name`; the message begins with the axis.
    """
    result: dict[str, Value] = {}
    for axis, value in _said_once(said).items():
        try:
            result[full_name(axis)] = value
        except ValueError as error:
            raise ValueError(f"{axis}: {error}") from None
    return _in_full(result)


Axis = Annotated[str, AfterValidator(full_name)]
ByAxis = (BeforeValidator(_said_once), AfterValidator(_in_full))
"""Validators of mappings by axis."""
