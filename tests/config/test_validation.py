"""Validation of plain values: one line per error, with the key, the problem and the valid values."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest

from fcnlab.config.dataset import AnyDataset
from fcnlab.config.grid.grid import GridFile
from fcnlab.config.head import AnyHead, SkipHead
from fcnlab.config.recipe import Recipe
from fcnlab.config.upsampler import AnyUpsampler, TransposedUpsampler
from fcnlab.config.validation import validate
from fcnlab.config.yaml_file import read
from fcnlab.errors import ConfigError

RECIPE = {
    "epochs": 2,
    "batch_size": 4,
    "crop": {"height": 64, "width": 64},
    "optimizer": {"name": "sgd", "lr": 0.1},
}


def errors_of(model: Any, value: object) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        validate(model, value, "grid.yaml: entry")
    return str(caught.value).splitlines()


def test_a_valid_value_becomes_a_model() -> None:
    assert validate(AnyHead, {"type": "skip", "stride": 8}, "f") == SkipHead(type="skip", stride=8)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            {"epoch": 3},
            "epoch: unknown key; did you mean 'epochs'? valid: activation_checkpointing, batch_norm, batch_size, ",
        ),
        ({"crop": {"height": 1, "width": 1, "widht": 1}}, "crop.widht: unknown key; did you mean 'width'?"),
        (
            {"loss": {"name": "dice"}},
            "loss.name: dice is not a base loss but a term of its own; set recipe.loss.dice",
        ),
        ({"loss": ["dice"]}, 'loss: input should be a mapping, such as {key: value}, not ["dice"]'),
        ({"epochs": "5"}, 'epochs: input should be a valid integer, not the text "5"; write it without quotes'),
        ({"epochs": 5.0}, "epochs: input should be a valid integer, not 5.0"),
        ({"epochs": 10**12}, "epochs: input should be less than 2147483648, not 1000000000000"),
        ({"crop": {"height": 10**6, "width": 1}}, "crop.height: input should be less than or equal to 65536"),
        ({"flip": "0.5"}, 'flip: input should be a valid number, not the text "0.5"; write it without quotes'),
        ({"flip": True}, "flip: input should be a valid number, not true"),
        ({"flip": math.nan}, "flip: input should be less than or equal to 1, not NaN"),
        ({"flip": 10**400}, "flip: input should be a valid number, not 1000"),
        ({"scale": ["0.5", 2]}, 'scale.0: input should be a valid number, not the text "0.5"'),
        ({"compile": "yes"}, 'compile: input should be true or false, not "yes"; write true'),
        ({"compile": 0}, "compile: input should be true or false, not 0; write false"),
        ({"deterministic": "maybe"}, 'deterministic: input should be true or false, not "maybe"'),
        ({"epochs": True}, "epochs: input should be a valid integer, not true"),
        ({"epochs": 0}, "epochs: input should be greater than or equal to 1, not 0"),
        ({"flip": 1.5}, "flip: input should be less than or equal to 1, not 1.5"),
        ({"crop": 64}, "crop: input should be a mapping, such as {height: ..., width: ...}, not 64"),
        ({"crop": {"height": 64}}, "crop.width: missing; this key is required"),
        (
            {"precision": "fp23"},
            "precision: \"fp23\" is not valid; did you mean 'fp32'? valid: auto, bf16, fp16, fp32, tf32",
        ),
        ({"optimizer": {"name": "sdg", "lr": 1}}, "optimizer.name: \"sdg\" is not valid; did you mean 'sgd'?"),
        ({"optimizer": {"name": "sgd", "lr": -1}}, "optimizer.lr: input should be greater than 0, not -1"),
        (
            {"optimizer": {"name": "sgd", "lr": 1, "momentun": 0}},
            "optimizer.momentun: unknown key with name: sgd; did you mean 'momentum'?",
        ),
        (
            {"optimizer": {"name": "adamw", "lr": 1, "nesterov": True}},
            "optimizer.nesterov: unknown key with name: adamw; valid: betas, lr, name, weight_decay",
        ),
        (
            {"optimizer": {"name": "SGD", "lr": 1}},
            "optimizer.name: \"SGD\" is not valid; did you mean 'sgd'? valid: adam, ",
        ),
        (
            {"optimizer": ["sgd", "adamw"]},
            'optimizer: input should be a mapping, such as {name: sgd, lr: ...}, not ["sgd", "adamw"]; to change only '
            "the name, set optimizer.name",
        ),
        (
            {"schedule": "Cosine"},
            'schedule: input should be a mapping, such as {name: cosine}, not "Cosine"; to change only the name, set '
            "schedule.name",
        ),
        ({"scale": [0.5, 1, 2]}, "scale: give 2 values, not [0.5, 1, 2]"),
        ({"scale": [0.5]}, "scale: give 2 values, not [0.5]"),
        ({"scale": []}, "scale: give 2 values, not []"),
        ({"scale": [2, 1]}, "scale must increase, not 2.0 to 1.0"),
    ],
)
def test_an_error_is_one_line_with_file_key_and_valid_values(change: dict[str, object], expected: str) -> None:
    (line,) = errors_of(Recipe, {**RECIPE, **change})
    assert line.startswith("grid.yaml: entry: ")
    assert expected in line


@pytest.mark.parametrize("key", sorted(RECIPE))
def test_a_missing_key_is_an_error_with_its_name(key: str) -> None:
    assert errors_of(Recipe, {k: v for k, v in RECIPE.items() if k != key}) == [
        f"grid.yaml: entry: {key}: missing; this key is required"
    ]


def test_several_errors_are_several_lines() -> None:
    assert errors_of(AnyHead, {"type": "skip", "fusion": "add", "strid": 8}) == [
        "grid.yaml: entry: stride: missing; this key is required with type: skip; valid: 4, 8, 16, 32",
        'grid.yaml: entry: fusion: "add" is not valid; valid: concat, sum',
        "grid.yaml: entry: strid: unknown key with type: skip; did you mean 'stride'? valid: at_once, context, "
        "description, fusion, hidden, stride, type",
    ]


@pytest.mark.parametrize(
    ("model", "value", "message"),
    [
        (AnyHead, {"stride": 8}, "type: missing; this key is required; valid: dilated, paper, skip"),
        (AnyHead, {"type": "Skip", "stride": 8}, "type: \"Skip\" is not valid; did you mean 'skip'? valid: dilated, "),
        (
            AnyHead,
            {"type": "MyHead"},
            'type: "MyHead" is not a built-in type, nor the name of an extension: lower-case',
        ),
        (
            AnyDataset,
            {"type": "Folder", "images": "a", "masks": "b", "classes": ["a", "b"], "fractions": {"val": 0.1}},
            "type: \"Folder\" is not valid; did you mean 'folder'? valid: ade20k, camvid, cityscapes, folder, shapes, ",
        ),
        (AnyHead, {"type": 3}, "type: input should be a valid string, not 3"),
        (AnyUpsampler, {"type": 3}, "type: 3 is not valid; valid: interpolate, resize, transposed"),
        (
            AnyDataset,
            {"type": "camvit"},
            "type: \"camvit\" is not valid; did you mean 'camvid'? "
            "valid: ade20k, camvid, cityscapes, folder, shapes, voc2012",
        ),
        (
            AnyHead,
            {"type": "mine", "options": {"a": [1]}},
            "options.a: input should be true, false, a number or a text, not [1]",
        ),
        (
            AnyHead,
            {"type": "mine", "options": {"a": float("nan")}},
            "options.a: input should be true, false, a number or a text, not NaN",
        ),
        (AnyHead, {"type": "skip", "stride": 8.0}, "stride: 8.0 is not valid; write 8"),
        (AnyHead, {"type": "dilated", "output_stride": 8, "convs": True}, "convs: true is not valid; write 1"),
        (AnyHead, {"type": "dilated", "output_stride": 8, "auxiliary": 16.0}, "auxiliary: 16.0 is not valid; write 16"),
        (Recipe, {**RECIPE, "optimizer": {"lr": 1}}, "optimizer.name: missing; this key is required; valid: adam, "),
    ],
)
def test_the_discriminator_of_a_union_is_reported_like_a_key(model: Any, value: object, message: str) -> None:
    (line,) = errors_of(model, value)
    assert line.startswith(f"grid.yaml: entry: {message}")


@pytest.mark.parametrize(
    ("model", "value", "message"),
    [
        (GridFile, {"question": "q", "seeds": [2, "x"]}, 'seeds.1: input should be a valid integer, not "x"'),
        (GridFile, {"question": "q", "seeds": [[2]]}, "seeds.0: input should be a valid integer, not [2]"),
        (GridFile, {"question": "q", "seeds": []}, "seeds: give at least 1 value, not []"),
        (GridFile, {"question": "q", "product": {"head": []}}, "product.head: give at least 1 value, not []"),
        (GridFile, {"question": "q", "seeds": "2, 3"}, "seeds: give an integer, or a list such as [2, 3], not 2, 3"),
        (GridFile, {"question": "q", "seeds": True}, "seeds: give an integer, or a list such as [2, 3], not true"),
        (GridFile, {"question": "q", "seeds": 2.0}, "seeds: give an integer, or a list such as [2, 3], not 2.0"),
        (
            Recipe,
            {**RECIPE, "ema": "0,99"},
            'ema: input should be a valid number, not "0,99"; use a decimal point: 0.99',
        ),
        (
            GridFile,
            {"question": "q", "base": {"recipe.ema": 0, 1: None}},
            "base.1: the key 1 is a number; use a decimal point in numbers, such as 0.001, and write a key that is a "
            "number in quotes",
        ),
        (
            GridFile,
            {"question": "q", "early_stopping": {"after": [1, 0], "keep": 0.5}},
            "early_stopping.after.1: input should be greater than or equal to 1, not 0",
        ),
        (
            AnyHead,
            {"type": "smp", "decoder": "unet", "options": {"a": [1, "x"]}},
            'options.a.1: input should be a valid integer, not "x"',
        ),
        (
            AnyHead,
            {"type": "smp", "decoder": "unet", "options": {"a": None}},
            "options.a: input should be true, false, a number or a text, not null",
        ),
        (
            Recipe,
            {**RECIPE, "transform": {"type": "mine", "options": {"a": [1.5, "x"]}}},
            'transform.options.a.1: input should be a valid number, not "x"',
        ),
    ],
)
def test_of_a_scalar_or_a_list_only_the_precise_error_is_reported(model: Any, value: object, message: str) -> None:
    (line,) = errors_of(model, value)
    assert line.startswith(f"grid.yaml: entry: {message}")


@pytest.mark.parametrize("model", [AnyHead, AnyUpsampler, AnyDataset, Recipe])
def test_an_entry_that_is_not_a_mapping_is_an_error_of_the_entry(model: Any) -> None:
    (line,) = errors_of(model, "fcn8s")
    assert line.startswith("grid.yaml: entry: input should be a mapping, such as {") and '"fcn8s"' in line


def test_a_long_value_is_shortened_in_the_error() -> None:
    (line,) = errors_of(Recipe, {**RECIPE, "epochs": "9" * 5000})
    assert len(line) < 200


def test_contradictory_values_are_refused() -> None:
    # An upsampler with random, fixed weights would only add noise.
    (line,) = errors_of(AnyUpsampler, {"init": "random", "learned": False})
    assert "use init: bilinear" in line


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("question: !!timestamp 2020-13-45", "not valid YAML: could not determine a constructor"),
        ("question: &a [*a]", "an anchor contains its own alias"),
        ("question: {2020-01-01: 1}", "question: "),
        ("seeds: 0", "seeds: input should be greater than or equal to 1, not 0"),
    ],
)
def test_unusual_values_are_one_error_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "q.yaml"
    path.write_text(f"{text}\n" + ("question: why\n" if text.startswith("seeds") else "") + "baseline: {}\n")
    with pytest.raises(ConfigError) as refused:
        validate(GridFile, read(path), str(path))
    (line,) = str(refused.value).splitlines()
    assert line.startswith(str(path))
    assert message in line


@pytest.mark.parametrize(
    ("model", "value", "old", "new"),
    [
        *(
            (Recipe, {**{k: v for k, v in RECIPE.items() if k != new}, old: 2}, old, new)
            for old, new in Recipe.renamed.items()
        ),
        *(
            (AnyUpsampler, {"init": "bilinear", old: "bilinear"}, old, new)
            for old, new in TransposedUpsampler.renamed.items()
        ),
        *((AnyHead, {"type": "skip", "stride": 8, old: ""}, old, new) for old, new in SkipHead.renamed.items()),
        *((GridFile, {"question": "q", old: "best"}, old, new) for old, new in GridFile.renamed.items()),
        (GridFile, {"question": "q", "early_stopping": {"after": 1, "below": "best - 5"}}, "below", "margin"),
    ],
)
def test_an_old_key_is_one_error_with_the_new_key(model: Any, value: object, old: str, new: str) -> None:
    (line,) = errors_of(model, value)
    assert re.fullmatch(rf"grid\.yaml: entry: (.*\.)?{old}: renamed to (.*\.)?{new}", line)
