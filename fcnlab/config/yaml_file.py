"""YAML in, checked values out: every fault of a file in one line each, with the file and the key."""

from __future__ import annotations

import json
from collections.abc import Hashable
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError

from fcnlab.config.base import Config
from fcnlab.errors import ConfigError, nearest

M = TypeVar("M", bound=BaseModel)


class _Loader(yaml.SafeLoader):
    """Safe YAML that refuses a key said twice, where plain YAML silently keeps the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key_node, _ in node.value:
            key = str(key_node.value)
            if key in seen and key != "<<":
                line = key_node.start_mark.line + 1
                raise yaml.MarkedYAMLError(problem=f"the key '{key}' stands twice (line {line})")
            seen.add(key)
        return super().construct_mapping(node, deep)


def parse(text: str, where: str) -> dict[str, Any]:
    """Parse YAML whose top is a mapping with string keys.

    Raises:
        ConfigError: not YAML, a key twice, or something else than a mapping.
    """
    try:
        value = yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ConfigError(f"{where}{line}: not valid YAML: {error.problem}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{where}: not valid YAML: {' '.join(str(error).split())}") from None
    except ValueError as error:  # a date that the calendar lacks
        raise ConfigError(f"{where}: not valid YAML: {error}") from None
    except RecursionError:
        raise ConfigError(f"{where}: nested too deeply to be read") from None
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ConfigError(f"{where}: expected a mapping of keys to values, found {_kind(value)}")
    strange = [key for key in value if not isinstance(key, str)]
    if strange:
        raise ConfigError(f"{where}: the key {strange[0]!r} is {_kind(strange[0])}; write it in quotes")
    return value


def read(path: Path) -> dict[str, Any]:
    """Read and parse a YAML file.

    Raises:
        ConfigError: the file is missing, unreadable, not UTF-8, or not a YAML mapping.
    """
    try:
        return parse(path.read_text(encoding="utf-8"), str(path))
    except FileNotFoundError:
        there = sorted(p.name for p in path.parent.glob("*.yaml")) if path.parent.is_dir() else []
        raise ConfigError(f"{path}: no such file; {nearest(path.name, there)}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None


def validate(model: type[M], value: Any, where: str) -> M:
    """Validate `value` as `model`.

    Raises:
        ConfigError: one line a fault: `where: key: what is wrong; what is valid`.
    """
    try:
        return model.model_validate(value)
    except ValidationError as error:
        items = error.errors(include_url=False)
        renamed = {_renamed(model, item) for item in items}
        # A value that matches no member of a union has an error per member: the first one is reported.
        faults = {
            _key(item): f"{where}: {_fault(model, item)}"
            for item in reversed(items)
            if not (item["type"] == "missing" and _key(item) in renamed)
        }
        raise ConfigError("\n".join(reversed(faults.values()))) from None


def _key(item: Any) -> str:
    """Where a fault is, as a user would write it: without the names that pydantic gives to members of a union."""
    loc = [str(part) for part in item["loc"]]
    return ".".join(part for part in loc if not part.startswith(("constrained-", "list[", "[key]"))) or "(top)"


def _fault(model: type[BaseModel], item: Any) -> str:
    loc = [str(part) for part in item["loc"]]
    key = _key(item)
    match item["type"]:
        case "extra_forbidden":
            if (new := _renamed(model, item)) is not None:
                return f"{key} was renamed to {new}"
            fields = {name for each in _models_at(model, loc[:-1]) for name in each.model_fields}
            return f"{key}: unknown key; {nearest(loc[-1], fields)}"
        case "missing":
            return f"{key}: missing; this key is required"
        case "literal_error":
            given = item["input"]
            valid = item["ctx"]["expected"].replace(" or ", ", ").replace("'", "").split(", ")
            return f"{key}: {_show(given)} is not valid; {nearest(str(given), valid)}"
        case "union_tag_not_found":
            return f"{key}.name: missing; this key is required"
        case "union_tag_invalid":
            valid, given = item["ctx"]["expected_tags"].replace("'", "").split(", "), item["ctx"]["tag"]
            return f"{key}.name: {_show(given)} is not valid; {nearest(given, valid)}"
        case "value_error":
            return f"{key}: {item['ctx']['error']}"
        case _:
            return f"{key}: {item['msg'][0].lower() + item['msg'][1:]}, not {_show(item['input'])}"


def _renamed(model: type[BaseModel], item: Any) -> str | None:
    """Return the new name of an old key, with the path to it."""
    if item["type"] != "extra_forbidden":
        return None
    *outer, old = [str(part) for part in item["loc"]]
    tables = [each.renamed for each in _models_at(model, outer) if issubclass(each, Config) and old in each.renamed]
    return ".".join([*_key(item).split(".")[:-1], tables[0][old]]) if tables else None


def _models_at(model: type[BaseModel], loc: list[str]) -> list[type[BaseModel]]:
    """Return the models at a location inside a model; a tagged union appears in the path as its tag."""
    current: list[type[BaseModel]] = [model]
    for part in loc:
        fields = [m.model_fields[part] for m in current if part in m.model_fields]
        if fields:
            current = [m for field in fields for m in models_in(field.annotation)]
        else:  # the tag of a union, or an index
            tagged = [
                m for m in current if "name" in m.model_fields and part in get_args(m.model_fields["name"].annotation)
            ]
            current = tagged or current
    return current


def models_in(annotation: Any) -> list[type[BaseModel]]:
    """The models that a type is made of, such as the members of a union."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [m for arg in get_args(annotation) for m in models_in(arg)]


def _show(value: Any) -> str:
    try:
        text = json.dumps(value, default=str, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError):  # keys that are no texts, an alias that holds itself
        text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _kind(value: Any) -> str:
    names = {
        list: "a list",
        str: "a text",
        int: "a number",
        float: "a number",
        bool: "true or false",
        dict: "a mapping",
    }
    return names.get(type(value), f"a {type(value).__name__}")
