"""What a YAML file may be, and what its author is told when it is not."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from fcnlab.config.grid.grid import GridFile
from fcnlab.config.recipe import Recipe
from fcnlab.config.variant import Head, Upsampler
from fcnlab.config.yaml_file import parse, read, validate
from fcnlab.errors import ConfigError

RECIPE = {
    "epochs": 2,
    "batch_size": 4,
    "crop": {"height": 64, "width": 64},
    "optimizer": {"name": "sgd", "lr": 0.1},
}

plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def fault(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        parse(text, "grid.yaml")
    return str(caught.value)


def faults(model: type, value: object) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        validate(model, value, "grid.yaml: entry")
    return str(caught.value).splitlines()


@given(st.dictionaries(st.text(), plain, max_size=4))
@settings(deadline=None, max_examples=50)
def test_what_yaml_writes_is_read_back_as_it_was(value: dict[str, object]) -> None:
    assert parse(yaml.safe_dump(value), "f") == value


def test_an_empty_file_says_nothing() -> None:
    assert parse("# only a comment\n", "f") == {}


def test_a_key_that_stands_twice_is_refused_with_its_line() -> None:
    message = fault("head: fcn8s\nseeds: 2\nhead: fcn32s\n")
    assert message.startswith("grid.yaml")
    assert "'head' stands twice (line 3)" in message


def test_a_key_that_stands_twice_is_refused_at_any_depth() -> None:
    assert "'lr' stands twice" in fault("optimizer:\n  lr: 1\n  lr: 2\n")
    assert "'a' stands twice" in fault("list:\n  - {a: 1, a: 2}\n")


def test_the_same_key_in_two_mappings_is_no_fault() -> None:
    assert parse("a: {lr: 1}\nb: {lr: 2}\n", "f") == {"a": {"lr": 1}, "b": {"lr": 2}}


@pytest.mark.parametrize(
    ("text", "found"),
    [("- 1\n- 2\n", "a list"), ("fcn8s\n", "a text"), ("3\n", "a number"), ("true\n", "true or false")],
)
def test_a_file_that_is_no_mapping_says_what_it_is_instead(text: str, found: str) -> None:
    assert fault(text) == f"grid.yaml: expected a mapping of keys to values, found {found}"


@pytest.mark.parametrize(
    "text", ["a: [1\n", "a: {b\n", "a: b: c\n", "\tx: 1\n", "a: 'open\n", "? [1]\n: 2\n", "a: \x00"]
)
def test_bad_yaml_is_one_line_that_names_the_file(text: str) -> None:
    message = fault(text)
    assert message.startswith("grid.yaml")
    assert "not valid YAML" in message
    assert "\n" not in message


def test_bad_yaml_names_the_line() -> None:
    assert fault("a: 1\nb: 2\nc: @x\n").startswith("grid.yaml, line 3: ")


def test_yaml_that_would_run_code_is_refused() -> None:
    assert "not valid YAML" in fault("a: !!python/object/apply:os.getcwd []\n")


def test_yaml_nested_without_end_is_refused_rather_than_overflowing() -> None:
    assert "nested too deeply" in fault("[" * 20_000)


def test_a_key_that_is_a_number_is_named() -> None:
    assert fault("1: fcn8s\n") == "grid.yaml: the key 1 is a number; write it in quotes"


def test_a_missing_file_is_told_with_the_nearest_there(tmp_path: Path) -> None:
    (tmp_path / "quickstart.yaml").write_text("{}")
    with pytest.raises(ConfigError, match=r"quickstrat\.yaml: no such file; did you mean 'quickstart\.yaml'\?"):
        read(tmp_path / "quickstrat.yaml")
    with pytest.raises(ConfigError, match=r"x\.yaml: no such file; valid: none"):
        read(tmp_path / "nowhere" / "x.yaml")


def test_a_file_that_is_not_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(ConfigError, match=r"binary\.yaml: cannot be read"):
        read(tmp_path / "binary.yaml")
    with pytest.raises(ConfigError, match="cannot be read"):
        read(tmp_path)


def test_a_valid_value_is_returned_checked() -> None:
    assert validate(Head, {"type": "skip", "stride": 8}, "f") == Head(type="skip", stride=8)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            {"epoch": 3},
            "epoch: unknown key; did you mean 'epochs'? valid: activation_checkpointing, batch_norm, batch_size, ",
        ),
        ({"crop": {"height": 1, "width": 1, "widht": 1}}, "crop.widht: unknown key; did you mean 'width'?"),
        ({"epochs": "5"}, 'epochs: input should be a valid integer, not "5"'),
        ({"epochs": True}, "epochs: input should be a valid integer, not true"),
        ({"epochs": 0}, "epochs: input should be greater than or equal to 1, not 0"),
        ({"flip": 1.5}, "flip: input should be less than or equal to 1, not 1.5"),
        ({"crop": 64}, "crop: input should be a valid dictionary"),
        ({"crop": {"height": 64}}, "crop.width: missing; this key is required"),
        (
            {"precision": "fp23"},
            "precision: \"fp23\" is not valid; did you mean 'fp32'? valid: auto, bf16, fp16, fp32, tf32",
        ),
        ({"optimizer": {"name": "sdg", "lr": 1}}, "optimizer.name: \"sdg\" is not valid; did you mean 'sgd'?"),
        ({"optimizer": {"name": "sgd", "lr": -1}}, "lr: input should be greater than 0, not -1"),
        ({"optimizer": {"name": "sgd", "lr": 1, "momentun": 0}}, "momentun: unknown key; did you mean 'momentum'?"),
        (
            {"optimizer": {"name": "adamw", "lr": 1, "nesterov": True}},
            "unknown key; valid: betas, lr, name, weight_decay",
        ),
        ({"scale": [2, 1]}, "scale must run from small to large, not from 2.0 to 1.0"),
    ],
)
def test_a_fault_is_one_line_with_file_key_and_remedy(change: dict[str, object], expected: str) -> None:
    (line,) = faults(Recipe, {**RECIPE, **change})
    assert line.startswith("grid.yaml: entry: ")
    assert expected in line


@pytest.mark.parametrize("key", sorted(RECIPE))
def test_a_missing_key_is_named(key: str) -> None:
    assert faults(Recipe, {k: v for k, v in RECIPE.items() if k != key}) == [
        f"grid.yaml: entry: {key}: missing; this key is required"
    ]


def test_several_faults_are_several_lines() -> None:
    assert faults(Head, {"typ": "skip", "stride": 7}) == [
        "grid.yaml: entry: type: missing; this key is required",
        "grid.yaml: entry: stride: 7 is not valid; valid: 16, 32, 4, 8",
        "grid.yaml: entry: typ: unknown key; did you mean 'type'? valid: at_once, auxiliary, concat_input, "
        "context, convs, description, dropout, fusion, hidden, options, output_stride, reads, stride, type",
    ]


def test_an_entry_that_is_no_mapping_is_a_fault_of_the_entry() -> None:
    (line,) = faults(Head, "fcn8s")
    assert line.startswith("grid.yaml: entry: (top): ") and '"fcn8s"' in line


def test_a_long_value_is_not_printed_in_full() -> None:
    (line,) = faults(Recipe, {**RECIPE, "epochs": "9" * 5000})
    assert len(line) < 200


def test_values_that_contradict_each_other_are_refused() -> None:
    # An upsampler that starts at random and never learns would be noise for ever.
    (line,) = faults(Upsampler, {"init": "random", "learned": False})
    assert "use init: bilinear" in line


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("question: 2020-13-45", "not valid YAML: month must be in 1..12"),
        ("question: &a [*a]", "question: "),
        ("question: {2020-01-01: 1}", "question: "),
        ("seeds: 0", "seeds: input should be greater than or equal to 1, not 0"),
    ],
)
def test_strange_values_are_one_line_too(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "q.yaml"
    path.write_text(f"{text}\n" + ("question: why\n" if text.startswith("seeds") else "") + "baseline: {}\n")
    with pytest.raises(ConfigError) as refused:
        validate(GridFile, read(path), str(path))
    (line,) = str(refused.value).splitlines()
    assert line.startswith(f"{path}: ")
    assert says in line


@pytest.mark.parametrize(
    ("model", "value", "old", "new"),
    [
        *(
            (Recipe, {**{k: v for k, v in RECIPE.items() if k != new}, old: 2}, old, new)
            for old, new in Recipe.renamed.items()
        ),
        *((Upsampler, {old: "bilinear"}, old, new) for old, new in Upsampler.renamed.items()),
        *((Head, {"type": "skip", "stride": 8, old: ""}, old, new) for old, new in Head.renamed.items()),
        *((GridFile, {"question": "q", old: "best"}, old, new) for old, new in GridFile.renamed.items()),
        (GridFile, {"question": "q", "early_stopping": {"after": 1, "below": "best - 5"}}, "below", "margin"),
    ],
)
def test_an_old_key_is_one_error_with_the_new_key(model: type, value: object, old: str, new: str) -> None:
    (line,) = faults(model, value)
    assert re.fullmatch(rf"grid\.yaml: entry: (.*\.)?{old} was renamed to (.*\.)?{new}", line)
