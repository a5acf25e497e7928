"""The JSON Schema of grid files: it is up to date, accepts every grid, and rejects typos."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from fcnlab.config.base import models_in
from fcnlab.config.grid.axes import COMPONENTS, fields, full_name
from fcnlab.config.grid.schema import grid_schema
from fcnlab.config.registry import KINDS, builtin
from tests.conftest import REPOSITORY

jsonschema = pytest.importorskip("jsonschema", reason="jsonschema checks grid files as editors do")

SCHEMA = grid_schema(builtin())
VALID = jsonschema.Draft202012Validator(SCHEMA)
EXPERIMENTS = sorted((REPOSITORY / "experiments").glob("*.yaml"))


def test_the_shipped_schema_is_up_to_date() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    shipped = (REPOSITORY / "experiments" / "grid.schema.json").read_text(encoding="utf-8")
    assert json.loads(shipped) == SCHEMA, "fcnlab grid schema > experiments/grid.schema.json"


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_every_grid_of_the_repository_is_valid_and_names_the_schema(path: Any) -> None:
    text = path.read_text(encoding="utf-8")
    VALID.validate(yaml.safe_load(text))
    assert text.startswith("# yaml-language-server: $schema=grid.schema.json\n")


def test_every_axis_is_a_key() -> None:
    offered = SCHEMA["$defs"]["Overrides"]["properties"].keys()
    assert offered == {
        *KINDS,
        "init_from",
        *(f"{component}.{field}" for component in COMPONENTS for field in fields(component)),
    }
    assert all(full_name(axis) == axis for axis in offered)
    assert "fcn8s" in SCHEMA["$defs"]["head"]["anyOf"][0]["enum"]


def list_mappings(models: list[type[BaseModel]], prefix: str) -> Iterator[str]:
    """Yield the fields that are written to YAML as mappings with arbitrary keys."""
    for model in models:
        properties = model.model_json_schema(mode="serialization")["properties"]
        for name, field in model.model_fields.items():
            schemas = [properties[name], *properties[name].get("anyOf", ())]
            if any(schema.get("additionalProperties") for schema in schemas):
                yield f"{prefix}.{name}"
            yield from list_mappings(models_in(field.annotation), f"{prefix}.{name}")


MAPPINGS = sorted({axis for component in COMPONENTS for axis in list_mappings(models_in(KINDS[component]), component)})


def is_axis(name: str) -> bool:
    try:
        full_name(name)
    except ValueError:
        return False
    return True


def test_the_schema_accepts_an_axis_if_and_only_if_the_loader_does() -> None:
    overrides = jsonschema.Draft202012Validator({"$ref": "#/$defs/Overrides", "$defs": SCHEMA["$defs"]})
    axis_names = jsonschema.Draft202012Validator({"$ref": "#/$defs/AxisName", "$defs": SCHEMA["$defs"]})
    paths = [(component, path.split(".")) for component in COMPONENTS for path in fields(component)]
    ends = [f"{component}.{'.'.join(path[first:])}" for component, path in paths for first in range(len(path))]
    assert {"recipe.transform.options", "dataset.colors", "dataset.classes"} <= set(MAPPINGS)
    names = [*ends, *(f"{axis}.other" for axis in MAPPINGS), "recipe.optimizer.other", "dataset.splits.other"]
    for name in dict.fromkeys(names):
        errors = overrides.iter_errors({name: "any"})
        assert any(error.validator == "additionalProperties" for error in errors) != is_axis(name), name
        assert axis_names.is_valid(name) == is_axis(name), name


@pytest.mark.parametrize(
    "override", [{"recipe.transform.options.p": 0.5}, {"dataset.colors.sky": "#0000ff"}, {"dataset.classes.sky": 1}]
)
def test_keys_inside_a_mapping_are_valid_axes(override: dict[str, Any]) -> None:
    VALID.validate({"question": "q", "base": override, "product": {axis: [value] for axis, value in override.items()}})


EVERYTHING = """
question: Is every key known?
description: Yes.
base: {backbone: "timm:resnet18.tv_in1k", dataset: camvid, dataset.classes: [a, b], recipe: standard, recipe.lr: 0.1}
blocks:
  - product: {head: [fcn8s, a-custom-head], recipe.optimizer.lr: [0.1, 1]}
    zip: {recipe.epochs: [1, 2], recipe.scale: [null, [0.5, 2]]}
    sample: {n: 3, recipe.lr: {log_uniform: [0.1, 1]}, recipe.flip: {uniform: [0, 1]}, upsampler: {choice: [random]}}
    when: {recipe.scale: {head: fcn8s}, recipe.epochs: [{head: fcn8s}, {recipe.batch_size: [4, 8]}]}
  - base: {recipe.optimizer: {name: adamw, lr: 0.01}}
    cells: [{head: fcn32s}, {init_from: {head: fcn32s}}]
    ablate: {changes: [{recipe.ema: 0.9}], mode: remove}
    exclude: [{recipe.ema: [0.9, null]}]
exclude: [{head.options.width: 3}]
seeds: [1, 2]
baseline: {head: fcn8s}
checkpoint: best
early_stopping: {after: [1, 2], keep: 0.5}
labels: {caption: c, axes: {recipe.lr: rate}, values: {head: {fcn8s: FCN-8s}}, cells: {"fcn8s, 1": ours}}
"""


def test_every_key_is_known() -> None:
    VALID.validate(yaml.safe_load(EVERYTHING))


@pytest.mark.parametrize(
    ("wrong", "at"),
    [
        ("base: {haed: fcn8s}", "$.base"),
        ("base: {recipe.epochs: many}", "$.base['recipe.epochs']"),
        ("base: {recipe.optimizer.lr: 0}", "$.base['recipe.optimizer.lr']"),
        ("base: {recipe.lr: 0}", "$.base['recipe.lr']"),
        ("product: {head: fcn8s}", "$.product.head"),
        ("product: {recipe.optimizer.lrr: [1]}", "$.product"),
        ("sample: {recipe.lr: {uniform: [1, 2]}}", "$.sample"),
        ("sample: {n: 2, recipe.lr: {uniform: [1, 2, 3]}}", "$.sample['recipe.lr']"),
        ("sample: {n: 2, head: {uniform: [1, 2]}}", "$.sample.head"),
        ("sample: {n: 2, head: {choice: [1]}}", "$.sample.head.choice"),
        ("sedes: 3", "$"),
        ("seeds: 0", "$.seeds"),
        ("checkpoint: bset", "$.checkpoint"),
        ("ablate: {changes: []}", "$.ablate.changes"),
        ("blocks: [{seeds: 3}]", "$.blocks[0]"),
        ("early_stopping: {keep: 0.5}", "$.early_stopping"),
        ("labels: {axes: {haed: Head}}", "$.labels.axes"),
    ],
)
def test_an_error_is_marked_at_its_location(wrong: str, at: str) -> None:
    (error,) = VALID.iter_errors(yaml.safe_load(f"question: q\n{wrong}"))
    assert error.json_path == at or error.json_path.startswith(at)
