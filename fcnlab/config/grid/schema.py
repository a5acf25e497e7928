"""The JSON Schema of grid files, with which editors complete axes and names and check values.

Names that a lab adds later are not listed, and components may be incompatible; `fcnlab grid plan` checks both.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pydantic import TypeAdapter

from fcnlab.config.grid.axes import COMPONENTS, INIT_FROM, fields, list_mappings
from fcnlab.config.grid.file import EarlyStopping
from fcnlab.config.grid.sample import RANGE_KINDS
from fcnlab.config.registry import KINDS, Registry

Schema = dict[str, Any]

UNTYPED = {"dataset.classes", "dataset.ignore"}
"""Fields that accept more than their type allows."""

ARBITRARY_KEYS = tuple(f"{component}.{path}" for component in COMPONENTS for path in list_mappings(component))
"""Fields that are mappings with arbitrary keys."""

DESCRIPTIONS = {
    "question": "The question of the grid, in one sentence",
    "description": "Context for readers of the table",
    "conclusion": "The answer and what remains open; written when the results are there",
    "base": "Overrides of all cells, by axis",
    "product": "Values by axis; each combination is a cell",
    "zip": "Values of axes that vary together: the first values of all axes, then the second, and so on",
    "sample": "Random search: the number of samples n, and a range of values by axis",
    "n": "Number of samples; a larger number keeps the others",
    "seed": "Seed of the samples",
    "sampler": "Independent random samples, or a Sobol sequence, which fills the ranges more evenly",
    "uniform": "Lowest and highest number",
    "log_uniform": "Lowest and highest number, above 0; the logarithm is uniform",
    "int_uniform": "Lowest and highest integer",
    "choice": "Values of equal probability",
    "cells": "Overrides of single cells on top of base",
    "ablate": "Changes that are examined one at a time: added to base, or removed from all of them",
    "exclude": "Conditions; cells that meet one of them are left out",
    "when": "Conditions by axis; the axis varies only in cells that meet one of its conditions",
    "blocks": "Several sets of cells, each with its own base, product, zip, sample, cells, ablate, exclude and when",
    "seeds": "Number of seeds of each cell, from 0 on, or a list of seeds",
    "baseline": "Overrides of the cell to compare with; by default the first, or an ablation's first unchanged cell",
    "checkpoint": "Weights to evaluate: of the last epoch, or of the best on val",
    "early_stopping": "Epochs after which weak cells are pruned, and the rule",
    "labels": "Display names of axes, values and cells, and the caption of the table in LaTeX",
}


def grid_schema(registry: Registry) -> Schema:
    """Return the JSON Schema of a grid file.

    Args:
        registry: registry with the names to offer.

    Returns:
        The schema.
    """
    definitions: Schema = {}
    definitions |= _axis_schemas(registry, definitions)
    values = {axis: _ref(axis) for axis in definitions if axis in (*KINDS, INIT_FROM) or "." in axis}
    condition = _by_axis({axis: {"anyOf": [value, _list(value)]} for axis, value in values.items()})
    ends = {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2}
    refs = {name: _ref(name) for name in ("Overrides", "Condition", "Conditions", "Columns", "Sample", "Block")}
    definitions |= {
        "Overrides": _by_axis(values),
        "Condition": {**condition, "minProperties": 1},
        "Conditions": {"anyOf": [refs["Condition"], _list(refs["Condition"])]},
        "Columns": _by_axis({axis: _list(value) for axis, value in values.items()}),
        "Range": _range({**dict.fromkeys(RANGE_KINDS, ends), "choice": {"type": "array", "minItems": 1}}),
        "Sample": _sample(values),
        "Block": _object(_block_keys(refs, values)),
        "AxisName": _axis_names(values),
        "EarlyStopping": EarlyStopping.model_json_schema(),
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A grid of fcnlab",
        **_object(_file_keys(refs) | _block_keys(refs, values), required=["question"]),
        "$defs": definitions,
    }


def format_schema(schema: Schema) -> str:
    """Format a schema as the text of a file.

    Args:
        schema: plain values.

    Returns:
        JSON text.
    """
    return json.dumps(schema, indent=1, ensure_ascii=False) + "\n"


def _block_keys(refs: Mapping[str, Schema], values: Mapping[str, Schema]) -> Schema:
    ablation = {
        "changes": _list({**refs["Overrides"], "minProperties": 1}),
        "mode": {"enum": ["add", "remove"], "default": "add"},
    }
    return {
        "base": refs["Overrides"],
        "product": refs["Columns"],
        "zip": refs["Columns"],
        "sample": refs["Sample"],
        "cells": {"type": "array", "items": refs["Overrides"]},
        "ablate": _object(ablation, required=["changes"]),
        "exclude": {"type": "array", "items": refs["Condition"]},
        "when": _by_axis(dict.fromkeys(values, refs["Conditions"])),
    }


def _sample(values: Mapping[str, Schema]) -> Schema:
    """Return the schema of a random search: its own keys, and a range for each axis."""
    named = {axis: _range({"choice": _list(values[axis])}) for axis in (*KINDS, INIT_FROM)}
    by_axis = _by_axis({axis: named.get(axis, _ref("Range")) for axis in values})
    own = _object(
        {
            "n": {"type": "integer", "minimum": 1},
            "seed": {"type": "integer", "minimum": 0, "default": 0},
            "sampler": {"enum": ["random", "qmc"], "default": "random"},
        }
    )
    return {**by_axis, "properties": {**own["properties"], **by_axis["properties"]}, "required": ["n"]}


def _range(kinds: Schema) -> Schema:
    return {**_object(kinds), "minProperties": 1, "maxProperties": 1}


def _file_keys(refs: Mapping[str, Schema]) -> Schema:
    """Return the schemas of the keys of a file that a block does not have."""
    return {
        "question": {"type": "string", "minLength": 1},
        "description": {"type": "string"},
        "conclusion": {"type": "string"},
        "blocks": {"type": "array", "items": refs["Block"]},
        "seeds": {
            "anyOf": [{"type": "integer", "minimum": 1}, _list({"type": "integer", "minimum": 0})],
            "default": 1,
        },
        "baseline": refs["Overrides"],
        "checkpoint": {"enum": ["last", "best"], "default": "last"},
        "early_stopping": _ref("EarlyStopping"),
        "labels": _labels(),
    }


def _labels() -> Schema:
    """Return the schema of the display names."""
    text: Schema = {"type": "string", "minLength": 1}
    texts: Schema = {"type": "object", "additionalProperties": text}
    by_axis: Schema = {"type": "object", "propertyNames": _ref("AxisName")}
    return _object(
        {
            "caption": {"type": "string"},
            "axes": {**by_axis, "additionalProperties": text},
            "values": {**by_axis, "additionalProperties": texts},
            "cells": texts,
        }
    )


def _axis_names(axes: Iterable[str]) -> Schema:
    """Return the schema of the full or short name of an axis."""
    names = [*axes, *(short for short, _ in _short_names())]
    return {"anyOf": [{"enum": names}, *({"pattern": f"^{_quote(field)}\\..+$"} for field in ARBITRARY_KEYS)]}


def _object(properties: Schema, required: list[str] | None = None) -> Schema:
    described = {
        name: {"description": DESCRIPTIONS[name], **value} if name in DESCRIPTIONS else value
        for name, value in properties.items()
    }
    schema: Schema = {"type": "object", "additionalProperties": False, "properties": described}
    return {**schema, "required": required} if required else schema


def _ref(name: str) -> Schema:
    return {"$ref": f"#/$defs/{name}"}


def _list(items: Schema) -> Schema:
    return {"type": "array", "items": items, "minItems": 1}


def _by_axis(values: Mapping[str, Schema]) -> Schema:
    """Return the schema of a mapping by axis. Short names are accepted as patterns, which editors do not offer."""
    patterns = {f"^{_quote(short)}$": values[full] for short, full in _short_names()}
    patterns |= {f"^{_quote(field)}\\..+$": {} for field in ARBITRARY_KEYS}
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": dict(values),
        "patternProperties": patterns,
    }


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
        model = TypeAdapter(KINDS[component]).json_schema(ref_template="#/$defs/{model}")
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
