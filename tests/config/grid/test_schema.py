"""The JSON Schema of grid files: it is up to date, accepts every grid, and rejects typos."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from fcnlab.config.grid.axes import COMPONENTS, fields, full_name
from fcnlab.config.grid.schema import format_schema, grid_schema
from fcnlab.config.registry import KINDS, builtin
from tests.conftest import REPOSITORY

jsonschema = pytest.importorskip("jsonschema", reason="jsonschema checks grid files as editors do")

SCHEMA = grid_schema(builtin())
VALID = jsonschema.Draft202012Validator(SCHEMA)
EXPERIMENTS = sorted((REPOSITORY / "experiments").glob("*.yaml"))


def test_the_shipped_schema_is_up_to_date() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    shipped = (REPOSITORY / "experiments" / "grid.schema.json").read_text(encoding="utf-8")
    assert shipped == format_schema(SCHEMA), "fcnlab grid schema > experiments/grid.schema.json"


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
