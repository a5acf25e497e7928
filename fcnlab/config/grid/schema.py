"""The JSON Schema of grid files, with which editors complete axes and names and check values.

Names that a lab adds later are not listed, and components may be incompatible; `fcnlab grid plan` checks both.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pydantic import BaseModel, TypeAdapter
from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import core_schema

from fcnlab.config.grid.axes import COMPONENTS, INIT_FROM, fields
from fcnlab.config.grid.file import GridFile
from fcnlab.config.registry import KINDS, Registry

Schema = dict[str, Any]

UNTYPED = {"dataset.classes", "dataset.ignore"}
"""Fields that accept more than their type allows."""

ARBITRARY_KEYS = tuple(
    f"{component}.{path}" for component in COMPONENTS for path, is_mapping in fields(component).items() if is_mapping
)
"""Fields that are mappings with arbitrary keys."""

RANGES = {
    "uniform": "lowest and highest number",
    "log_uniform": "lowest and highest number, above 0; the logarithm is uniform",
    "int_uniform": "lowest and highest integer",
}
"""Descriptions of the ranges with two ends."""


class _DescribedSchema(GenerateJsonSchema):
    """Generates schemas whose descriptions are those of the docstrings, without titles of fields."""

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002 - of the base class
        return False

    def model_schema(self, schema: core_schema.ModelSchema) -> Schema:
        texts = _describe_fields(schema["cls"])
        result = super().model_schema(schema)
        result["description"] = _parse_docstring(schema["cls"])[0]
        for name, field in result.get("properties", {}).items():
            result["properties"][name] = ({"description": texts[name]} if name in texts else {}) | field
        return result


class _FileSchema(_DescribedSchema):
    """Generates the schema of a file, whose optional keys are left out instead of being null."""

    def nullable_schema(self, schema: core_schema.NullableSchema) -> Schema:
        return self.generate_inner(schema["schema"])

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> Schema:
        if schema.get("default") is None:
            return self.generate_inner(schema["schema"])
        return super().default_schema(schema)


def _describe_fields(model: type[BaseModel]) -> dict[str, str]:
    """Return the descriptions of the fields of a model and its bases."""
    return {name: text for base in reversed(model.__mro__) for name, text in _parse_docstring(base)[1].items()}


def _parse_docstring(cls: type) -> tuple[str, dict[str, str]]:
    """Return the text of a docstring before the section Attributes, and the descriptions in it."""
    text, _, section = inspect.cleandoc(cls.__doc__ or "").partition("Attributes:\n")
    found = re.findall(r"^ {4}(\w+): (.*(?:\n {8}.*)*)", section, re.MULTILINE)
    return text.strip(), {name: " ".join(description.split()) for name, description in found}


def grid_schema(registry: Registry) -> Schema:
    """Return the JSON Schema of a grid file.

    Args:
        registry: registry with the names to offer.

    Returns:
        The schema.
    """
    file = GridFile.model_json_schema(schema_generator=_FileSchema)
    definitions: Schema = file.pop("$defs")
    axes = _axis_schemas(registry, definitions)
    values = {axis: _ref(axis) for axis in axes}
    overrides, condition = _ref("Overrides"), _ref("Condition")
    definitions |= axes | {
        "Overrides": _by_axis(values),
        "Condition": _by_axis({axis: {"anyOf": [value, _list(value)]} for axis, value in values.items()})
        | {"minProperties": 1},
        "Conditions": {"anyOf": [condition, _list(condition)]},
        "Columns": _by_axis({axis: _list(value) for axis, value in values.items()}),
        "Range": _range({}, numeric=True),
        "AxisName": _axis_names(values),
    }
    block: dict[str, Schema] = {
        "base": overrides,
        "product": _ref("Columns"),
        "zip": _ref("Columns"),
        "cells": {"type": "array", "items": overrides},
        "exclude": {"type": "array", "items": condition},
        "when": _by_axis(dict.fromkeys(values, _ref("Conditions"))),
    }
    for model, by_axis in ((file, {**block, "baseline": overrides}), (definitions["Block"], block)):
        for name, schema in by_axis.items():
            model["properties"][name] = {"description": model["properties"][name].get("description", ""), **schema}
    definitions["Ablation"]["properties"]["changes"]["items"] = {**overrides, "minProperties": 1}
    for name in ("axes", "values"):
        definitions["Labels"]["properties"][name]["propertyNames"] = _ref("AxisName")
    ranges = {axis: _range(values[axis]) if axis in KINDS or axis == INIT_FROM else _ref("Range") for axis in values}
    definitions["Sample"]["properties"] |= ranges
    definitions["Sample"] |= {"additionalProperties": False, "patternProperties": _patterns(ranges)}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **file,
        "title": "A grid of fcnlab",
        "$defs": definitions,
    }


def _range(choices: Schema, *, numeric: bool = False) -> Schema:
    """Return the schema of a range: a choice of values, and ranges of numbers where the axis is not a name."""
    ends = {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2}
    kinds = {kind: {"description": text, **ends} for kind, text in RANGES.items()} if numeric else {}
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": {**kinds, "choice": {"description": "values of equal probability", **_list(choices)}},
        "minProperties": 1,
        "maxProperties": 1,
    }


def _axis_names(axes: Iterable[str]) -> Schema:
    """Return the schema of the full or short name of an axis."""
    names = [*axes, *(short for short, _ in _short_names())]
    return {"anyOf": [{"enum": names}, *({"pattern": f"^{_quote(field)}\\..+$"} for field in ARBITRARY_KEYS)]}


def _ref(name: str) -> Schema:
    return {"$ref": f"#/$defs/{name}"}


def _list(items: Schema) -> Schema:
    return {"type": "array", "items": items, "minItems": 1}


def _by_axis(values: Mapping[str, Schema]) -> Schema:
    """Return the schema of a mapping by axis."""
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": dict(values),
        "patternProperties": _patterns(values),
    }


def _patterns(values: Mapping[str, Schema]) -> Schema:
    """Return the schemas of short names of axes, as patterns, which editors do not offer, and of arbitrary keys."""
    short = {f"^{_quote(short)}$": values[full] for short, full in _short_names()}
    return short | {f"^{_quote(field)}\\..+$": {} for field in ARBITRARY_KEYS}


def _quote(name: str) -> str:
    return name.replace(".", "\\.")


def _short_names() -> Iterator[tuple[str, str]]:
    """Yield the unique short name of each field with its full name."""
    for component in COMPONENTS:
        known = fields(component)
        ends = [".".join(path.split(".")[-depth:]) for path in known for depth in range(1, path.count(".") + 1)]
        for end in dict.fromkeys(ends):
            full = [path for path in known if path.endswith(f".{end}")]
            if len(full) == 1 and end.partition(".")[0] not in known:
                yield f"{component}.{end}", f"{component}.{full[0]}"


def _axis_schemas(registry: Registry, definitions: Schema) -> dict[str, Schema]:
    """Return the schema of each axis, and add the models of fields to the definitions."""
    key = {"type": "string", "pattern": "^[0-9a-f]{64}$"}
    values: dict[str, Schema] = {kind: _names(kind, registry) for kind in KINDS}
    values[INIT_FROM] = {"anyOf": [{"type": "null"}, key, _ref("Overrides")]}
    for component in COMPONENTS:
        model = TypeAdapter(KINDS[component]).json_schema(schema_generator=_DescribedSchema)
        definitions |= model.pop("$defs", {})
        by_path: dict[str, list[Schema]] = {}
        for root in _objects(model, definitions):
            for path, schema in _fields(root, definitions, f"{component}."):
                kept = {name: value for name, value in schema.items() if name != "title"}
                if kept not in by_path.setdefault(path, []):
                    by_path[path].append(kept)
        for path, schemas in by_path.items():
            values[path] = {} if path in UNTYPED else schemas[0] if len(schemas) == 1 else {"anyOf": schemas}
    return values


def _names(kind: str, registry: Registry) -> Schema:
    """Return the schema of a name, with the known names for completion; a lab may have others."""
    return {"anyOf": [{"enum": registry.names(kind)}, {"type": "string"}]}


def _fields(schema: Schema, definitions: Schema, prefix: str) -> Iterator[tuple[str, Schema]]:
    """Yield the fields of an object and of the objects inside, with their paths."""
    for name, inner in schema.get("properties", {}).items():
        yield f"{prefix}{name}", inner
        for model in _objects(inner, definitions):
            yield from _fields(model, definitions, f"{prefix}{name}.")


def _objects(schema: Schema, definitions: Schema) -> Iterator[Schema]:
    """Yield the objects that a value may be."""
    if "properties" in schema:
        yield schema
    if "$ref" in schema:
        yield definitions[schema["$ref"].rpartition("/")[2]]
    for member in (*schema.get("anyOf", ()), *schema.get("oneOf", ())):
        yield from _objects(member, definitions)
