"""Reading YAML files: valid content, and the errors of invalid files."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fcnlab.config.yaml_file import MAX_BYTES, dump, parse, read
from fcnlab.errors import ConfigError
from fcnlab.lab import Lab
from fcnlab.redaction import find_control_character
from tests.conftest import SMOKE, write_grid

texts = st.text().filter(lambda text: find_control_character(text) is None)
plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)


def error_of(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        parse(text, "grid.yaml")
    return str(caught.value)


@given(st.dictionaries(texts, plain, max_size=4))
@settings(deadline=None, max_examples=50)
def test_dumped_yaml_is_read_back_unchanged(value: dict[str, object]) -> None:
    assert parse(dump(value), "f") == parse(dump(value, flow=True), "f") == value


def test_an_empty_file_is_an_empty_mapping() -> None:
    assert parse("# only a comment\n", "f") == {}


def test_a_duplicate_key_is_refused_with_its_line() -> None:
    message = error_of("head: fcn8s\nseeds: 2\nhead: fcn32s\n")
    assert message.startswith("grid.yaml")
    assert "the key 'head' appears twice, in lines 1 and 3" in message


def test_a_duplicate_key_is_refused_at_any_depth() -> None:
    assert "'lr' appears twice" in error_of("optimizer:\n  lr: 1\n  lr: 2\n")
    assert "'a' appears twice" in error_of("list:\n  - {a: 1, a: 2}\n")


def test_the_same_key_in_two_mappings_is_allowed() -> None:
    assert parse("a: {lr: 1}\nb: {lr: 2}\n", "f") == {"a": {"lr": 1}, "b": {"lr": 2}}


@pytest.mark.parametrize(
    ("text", "found"),
    [("- 1\n- 2\n", "a list"), ("fcn8s\n", "a string"), ("3\n", "a number"), ("true\n", "true or false")],
)
def test_the_error_of_a_file_that_is_not_a_mapping_names_its_type(text: str, found: str) -> None:
    assert error_of(text) == f"grid.yaml: expected a mapping of keys to values, found {found}"


@pytest.mark.parametrize(
    "text", ["a: [1\n", "a: {b\n", "a: b: c\n", "\tx: 1\n", "a: 'open\n", "? [1]\n: 2\n", "a: \x00"]
)
def test_the_error_of_invalid_yaml_is_one_line_with_the_file(text: str) -> None:
    message = error_of(text)
    assert message.startswith("grid.yaml")
    assert "not valid YAML" in message
    assert "\n" not in message


def test_the_error_of_invalid_yaml_has_the_line() -> None:
    assert error_of("a: 1\nb: 2\nc: @x\n").startswith("grid.yaml, line 3: ")


def test_yaml_with_python_objects_is_refused() -> None:
    assert "not valid YAML" in error_of("a: !!python/object/apply:os.getcwd []\n")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("off", "off"), ("on", "on"), ("yes", "yes"), ("no", "no"), ("y", "y"), ("No", "No"),
        ("true", True), ("False", False), ("null", None), ("~", None), ("", None), ("Null", None), ("nul", "nul"),
        ("010", 10), ("-08", -8), ("+3", 3), ("0o10", 8), ("0x1F", 31), ("0b11", "0b11"), ("1_000", "1_000"),
        ("1e-3", 0.001), ("1E5", 100_000.0), (".5", 0.5), ("5.", 5.0), ("-.inf", -math.inf), ("1.2.3", "1.2.3"),
        ("1:30", "1:30"), ("2026-01-31", "2026-01-31"), ("=", "="), ("'010'", "010"), ('"off"', "off"),
    ],
)  # fmt: skip
def test_scalars_are_those_of_yaml_1_2(text: str, value: object) -> None:
    found = parse(f"a: {text}\nb: [{text or '~'}]\n", "f")
    assert found == {"a": value, "b": [value]}
    assert type(found["a"]) is type(value)


@pytest.mark.parametrize(
    "word", ["off", "on", "yes", "no", "010", "09", "0o7", "1e-3", "1_000", "1:30", "<<", "=", "2026-01-31"]
)
def test_dumped_words_are_strings_for_yaml_1_1_readers(word: str) -> None:
    import yaml

    assert parse(dump({"a": word}), "f") == yaml.safe_load(dump({"a": word})) == {"a": word}


def test_boolean_words_of_yaml_1_1_are_string_keys() -> None:
    assert parse("on: 1\noff: 2\nno: 3\n", "f") == {"on": 1, "off": 2, "no": 3}


def test_merged_mappings_are_read() -> None:
    text = "common: &c {a: 1, b: 2}\nown: {<<: *c, b: 3}\n"
    assert parse(text, "f")["own"] == {"a": 1, "b": 3}


def test_keys_that_are_equal_as_values_are_duplicates() -> None:
    assert "appears twice, in lines 2 and 3" in error_of("a:\n  10: x\n  0xA: y\n")
    assert "appears twice, in lines 1 and 2" in error_of("a: x\n'a': y\n")
    assert parse("a: {1: x, '1': y}\n", "f") == {"a": {1: "x", "1": "y"}}


@pytest.mark.parametrize(
    "tag",
    [
        *("!!timestamp x", "!!binary x", "!!bool maybe", "!!int x", "!!set {a}", "!own x"),
        *(
            "!!float x",
            "!!float ''",
            "!!map [a]",
            "!!map a",
            "!!seq {a: 1}",
            "!!str [a]",
            "!!int [a]",
            "!!float {a}",
            "!!bool [a]",
            "!!null [a]",
            "9" * 5000,
        ),
    ],
)
def test_tags_outside_the_core_schema_and_their_errors_are_refused(tag: str) -> None:
    message = error_of(f"a: {tag}\n")
    assert message.startswith("grid.yaml, line 1: not valid YAML: ") and "\n" not in message and len(message) < 200


def test_deeply_nested_yaml_is_refused() -> None:
    assert "nested too deeply, more than 50 levels" in error_of("[" * 20_000)
    assert "nested too deeply" in error_of("a: " + "{b: " * 60 + "1" + "}" * 60)
    assert parse("a: " + "[" * 40 + "]" * 40, "f")


def test_aliases_that_multiply_are_refused() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 9)]
    assert "more than 500,000 values with aliases written out" in error_of("\n".join(lines))
    assert error_of("b: 1\na: &a [*a]\n") == "grid.yaml, line 2: not valid YAML: an anchor contains its own alias"
    assert parse("\n".join(lines[:3]), "f")["a2"][9][9] == ["x"] * 10


@pytest.mark.parametrize("character", [r"\e", r"\x07", r"\r", r"\x9b", r"\u202E", r"\ud800"])
def test_control_characters_are_refused_in_values_and_keys(character: str) -> None:
    shown = {r"\e": r"\x1b", r"\u202E": r"\u202e"}.get(character, character)
    message = f"grid.yaml, line 2: not valid YAML: a text contains '{shown}'"
    assert error_of(f'a: 1\nquestion: "x{character}[2J"\n') == message
    assert error_of(f'a: 1\n"x{character}": 1\n') == message
    assert parse('a: "one\\ttwo\\n"\n', "f") == {"a": "one\ttwo\n"}


def test_a_file_that_is_too_large_is_refused_unread(tmp_path: Path) -> None:
    (tmp_path / "big.yaml").write_text("a: " + "x" * MAX_BYTES)
    with pytest.raises(ConfigError, match=r"big\.yaml: has 1\.0 MiB; a YAML file of at most 1 MiB is expected"):
        read(tmp_path / "big.yaml")


def test_a_numeric_key_is_refused() -> None:
    assert error_of("1: fcn8s\n") == "grid.yaml: the key 1 is a number; write it in quotes"


def test_a_missing_file_is_an_error_with_the_nearest_name(tmp_path: Path) -> None:
    (tmp_path / "quickstart.yaml").write_text("{}")
    with pytest.raises(ConfigError, match=r"quickstrat\.yaml: no such file; did you mean 'quickstart\.yaml'\?"):
        read(tmp_path / "quickstrat.yaml")
    with pytest.raises(ConfigError, match=r"x\.yaml: no such file, and no YAML file in .*/nowhere"):
        read(tmp_path / "nowhere" / "x.yaml")


def test_a_file_that_is_missing_in_a_lab_is_an_error_with_its_grid_files(tmp_path: Path) -> None:
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "mine.yaml").write_text("{}")
    for name in ("mine", "mine.yaml"):
        with pytest.raises(ConfigError, match=rf"{name}: no such file; .*experiments/mine\.yaml"):
            read(tmp_path / name)


def test_an_unreadable_file_is_an_error_with_its_name(tmp_path: Path) -> None:
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(ConfigError, match=r"binary\.yaml: cannot be read"):
        read(tmp_path / "binary.yaml")
    with pytest.raises(ConfigError, match="cannot be read"):
        read(tmp_path)


def test_a_grid_file_is_read_as_it_is_written(tmp_path: Path) -> None:
    recipe = "recipe.fused: off, recipe.epochs: 010, recipe.lr: 1e-3, recipe.deterministic: true"
    path = write_grid(tmp_path, SMOKE.replace("base: {", f"base: {{{recipe}, "))
    cell = Lab.find(path).load_grid(path).cells[0]
    assert cell.recipe.fused == "off"
    assert cell.recipe.epochs == 10
    assert cell.recipe.optimizer.lr == 0.001
    assert cell.recipe.deterministic is True
    path.write_text(path.read_text(encoding="utf-8").replace("deterministic: true", "deterministic: yes"), "utf-8")
    with pytest.raises(ConfigError, match='input should be true or false, not "yes"; write true'):
        Lab.find(path).load_grid(path)
