"""The JSON Schema of grid files, for editors: it completes axes and names and checks values while one types.

What it cannot know stays with `fcnlab grid plan`: names that a lab has added since, and what does not go together.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from fcnlab.config.grid.axes import COMPONENTS, INIT_FROM, fields
from fcnlab.config.grid.early_stopping import EarlyStopping
from fcnlab.config.registry import KINDS, Registry

Schema = dict[str, Any]

LOOSE = {"dataset.classes", "dataset.ignore"}
"""Fields whose values YAML may say in more ways than their type tells."""

KEYED = ("head.options", "dataset.lists", "dataset.classes")
"""Fields that take keys of any name."""

ABOUT = {
    "question": "What the grid asks, in one sentence",
    "description": "What a reader of the table should know beside it",
    "conclusion": "What the answer was and what remains open, written once the table is there",
    "base": "What all cells have in common, by axis",
    "product": "Axes with their values; each combination is a cell",
    "zip": "Axes that vary together: the first values of all, then the second, and so on",
    "cells": "Cells that are listed one by one, each as what it says otherwise than base",
    "ablate": "Changes that are looked at one at a time: added to base, or left out of all of them",
    "exclude": "Conditions; a cell that meets one of them is taken out",
    "when": "Axes that vary only in cells that meet a condition",
    "blocks": "Several sets of cells, each with its own base, product, zip, cells, ablate, exclude and when",
    "seeds": "How many seeds each cell has, from 0 on, or a list of seeds",
    "baseline": "Which cell the others are compared to; an ablation says it by itself",
    "checkpoint": "Whether figures are those of the last epoch or of the one that is best on val",
    "early_stopping": "After which epochs cells are judged that have no hope, and which of them go on",
}


def grid_schema(registry: Registry) -> Schema:
    """The schema of a grid file, with the names of a catalogue."""
    definitions: Schema = {}
    definitions |= _values(registry, definitions)
    values = {axis: _ref(axis) for axis in definitions if axis in (*KINDS, INIT_FROM) or "." in axis}
    assignment = _by_axis(values)
    condition = _by_axis({axis: {"anyOf": [value, _list(value)]} for axis, value in values.items()})
    refs = {name: _ref(name) for name in ("Assignment", "Condition", "Conditions", "Columns", "Block")}
    definitions |= {
        "Assignment": assignment,
        "Condition": {**condition, "minProperties": 1},
        "Conditions": {"anyOf": [refs["Condition"], _list(refs["Condition"])]},
        "Columns": _by_axis({axis: _list(value) for axis, value in values.items()}),
        "Block": _object(_block(refs, values)),
        "EarlyStopping": EarlyStopping.model_json_schema(),
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A grid of fcnlab",
        **_object(_file(refs) | _block(refs, values), required=["question"]),
        "$defs": definitions,
    }


def as_text(schema: Schema) -> str:
    """The schema as the text of a file."""
    return json.dumps(schema, indent=1, ensure_ascii=False) + "\n"


def _block(refs: Mapping[str, Schema], values: Mapping[str, Schema]) -> Schema:
    """The keys of a block."""
    ablation = {
        "changes": _list({**refs["Assignment"], "minProperties": 1}),
        "mode": {"enum": ["add", "remove"], "default": "add"},
    }
    return {
        "base": refs["Assignment"],
        "product": refs["Columns"],
        "zip": refs["Columns"],
        "cells": {"type": "array", "items": refs["Assignment"]},
        "ablate": _object(ablation, required=["changes"]),
        "exclude": {"type": "array", "items": refs["Condition"]},
        "when": _by_axis(dict.fromkeys(values, refs["Conditions"])),
    }


def _file(refs: Mapping[str, Schema]) -> Schema:
    """The keys of a file beside those of a block."""
    return {
        "question": {"type": "string", "minLength": 1},
        "description": {"type": "string"},
        "conclusion": {"type": "string"},
        "blocks": {"type": "array", "items": refs["Block"]},
        "seeds": {
            "anyOf": [{"type": "integer", "minimum": 1}, _list({"type": "integer", "minimum": 0})],
            "default": 1,
        },
        "baseline": refs["Assignment"],
        "checkpoint": {"enum": ["last", "best"], "default": "last"},
        "early_stopping": _ref("EarlyStopping"),
    }


def _object(properties: Schema, required: list[str] | None = None) -> Schema:
    described = {name: {"description": ABOUT[name], **value} if name in ABOUT else value
                 for name, value in properties.items()}  # fmt: skip
    schema: Schema = {"type": "object", "additionalProperties": False, "properties": described}
    return {**schema, "required": required} if required else schema


def _ref(name: str) -> Schema:
    return {"$ref": f"#/$defs/{name}"}


def _list(items: Schema) -> Schema:
    return {"type": "array", "items": items, "minItems": 1}


def _by_axis(values: Mapping[str, Schema]) -> Schema:
    """A mapping by axis. Short names are taken too, as patterns, which editors do not offer."""
    patterns = {f"^{_quoted(short)}$": values[full] for short, full in _short_names()}
    patterns |= {f"^{_quoted(field)}\\..+$": {} for field in KEYED}
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": dict(values),
        "patternProperties": patterns,
    }


def _quoted(name: str) -> str:
    return name.replace(".", "\\.")


def _short_names() -> Iterator[tuple[str, str]]:
    """Each short name of a field that only one field has, and the whole one."""
    for part in COMPONENTS:
        known = fields(part)
        ends = [".".join(path.split(".")[-depth:]) for path in known for depth in range(1, path.count(".") + 1)]
        for end in dict.fromkeys(ends):
            whole = [path for path in known if path.endswith(f".{end}")]
            if len(whole) == 1 and end.partition(".")[0] not in known:
                yield f"{part}.{end}", f"{part}.{whole[0]}"


def _values(registry: Registry, definitions: Schema) -> dict[str, Schema]:
    """The schema of each axis; the models of fields are added to the definitions."""
    key = {"type": "string", "pattern": "^[0-9a-f]{64}$"}
    values: dict[str, Schema] = {kind: _names(kind, registry) for kind in KINDS}
    values[INIT_FROM] = {"anyOf": [{"type": "null"}, key, _ref("Assignment")]}
    for part in COMPONENTS:
        model = KINDS[part].model_json_schema(ref_template="#/$defs/{model}")
        definitions |= model.pop("$defs", {})
        found: dict[str, list[Schema]] = {}
        for path, schema in _fields(model, definitions, f"{part}."):
            kept = {name: value for name, value in schema.items() if name != "title"}
            if kept not in found.setdefault(path, []):
                found[path].append(kept)
        for path, schemas in found.items():
            values[path] = {} if path in LOOSE else schemas[0] if len(schemas) == 1 else {"anyOf": schemas}
    return values


def _names(kind: str, registry: Registry) -> Schema:
    """The names of a kind, for completion; others are let through, since a lab may add to them."""
    return {"anyOf": [{"enum": registry.names(kind)}, {"type": "string"}]}


def _fields(schema: Schema, definitions: Schema, before: str) -> Iterator[tuple[str, Schema]]:
    """The fields of an object and of the objects inside, by their paths."""
    for name, inner in schema.get("properties", {}).items():
        yield f"{before}{name}", inner
        for model in _objects(inner, definitions):
            yield from _fields(model, definitions, f"{before}{name}.")


def _objects(schema: Schema, definitions: Schema) -> Iterator[Schema]:
    """The objects that a value may be."""
    if "$ref" in schema:
        yield definitions[schema["$ref"].rpartition("/")[2]]
    for other in (*schema.get("anyOf", ()), *schema.get("oneOf", ())):
        yield from _objects(other, definitions)
