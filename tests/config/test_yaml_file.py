"""Reading YAML files: what is accepted, and the errors of invalid files."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from fcnlab.config.yaml_file import parse, read
from fcnlab.errors import ConfigError

plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def error_of(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        parse(text, "grid.yaml")
    return str(caught.value)


@given(st.dictionaries(st.text(), plain, max_size=4))
@settings(deadline=None, max_examples=50)
def test_dumped_yaml_is_read_back_unchanged(value: dict[str, object]) -> None:
    assert parse(yaml.safe_dump(value), "f") == value


def test_an_empty_file_is_an_empty_mapping() -> None:
    assert parse("# only a comment\n", "f") == {}


def test_a_duplicate_key_is_refused_with_its_line() -> None:
    message = error_of("head: fcn8s\nseeds: 2\nhead: fcn32s\n")
    assert message.startswith("grid.yaml")
    assert "'head' appears twice (line 3)" in message


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


def test_deeply_nested_yaml_is_refused() -> None:
    assert "nested too deeply" in error_of("[" * 20_000)


def test_a_numeric_key_is_refused() -> None:
    assert error_of("1: fcn8s\n") == "grid.yaml: the key 1 is a number; write it in quotes"


def test_a_missing_file_is_an_error_with_the_nearest_name(tmp_path: Path) -> None:
    (tmp_path / "quickstart.yaml").write_text("{}")
    with pytest.raises(ConfigError, match=r"quickstrat\.yaml: no such file; did you mean 'quickstart\.yaml'\?"):
        read(tmp_path / "quickstrat.yaml")
    with pytest.raises(ConfigError, match=r"x\.yaml: no such file; valid: none"):
        read(tmp_path / "nowhere" / "x.yaml")


def test_an_unreadable_file_is_an_error_with_its_name(tmp_path: Path) -> None:
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(ConfigError, match=r"binary\.yaml: cannot be read"):
        read(tmp_path / "binary.yaml")
    with pytest.raises(ConfigError, match="cannot be read"):
        read(tmp_path)
