"""Read YAML files whose top is a mapping, with one clear error where they are invalid."""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from fcnlab.errors import ConfigError, nearest

_KINDS = {list: "a list", str: "a string", int: "a number", float: "a number", bool: "true or false", dict: "a mapping"}


class _Loader(yaml.SafeLoader):
    """Safe loader that refuses a duplicate key, of which plain YAML silently keeps the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key_node, _ in node.value:
            key = str(key_node.value)
            if key in seen and key != "<<":
                line = key_node.start_mark.line + 1
                raise yaml.MarkedYAMLError(problem=f"the key '{key}' appears twice (line {line})")
            seen.add(key)
        return super().construct_mapping(node, deep)


def parse(text: str, where: str) -> dict[str, Any]:
    """Parse YAML whose top is a mapping with string keys.

    Args:
        text: the YAML.
        where: start of error messages, such as the path of the file.

    Returns:
        The mapping; empty for an empty text.

    Raises:
        ConfigError: not YAML, a duplicate key, or not a mapping.
    """
    try:
        value = yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ConfigError(f"{where}{line}: not valid YAML: {error.problem}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{where}: not valid YAML: {' '.join(str(error).split())}") from None
    except ValueError as error:  # such as a date that does not exist
        raise ConfigError(f"{where}: not valid YAML: {error}") from None
    except RecursionError:
        raise ConfigError(f"{where}: nested too deeply") from None
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ConfigError(f"{where}: expected a mapping of keys to values, found {_kind(value)}")
    invalid = [key for key in value if not isinstance(key, str)]
    if invalid:
        raise ConfigError(f"{where}: the key {invalid[0]!r} is {_kind(invalid[0])}; write it in quotes")
    return value


def read(path: Path) -> dict[str, Any]:
    """Read and parse a YAML file.

    Args:
        path: of the file.

    Returns:
        The mapping in the file.

    Raises:
        ConfigError: the file is missing, unreadable, not UTF-8, or not a YAML mapping.
    """
    try:
        return parse(path.read_text(encoding="utf-8"), str(path))
    except FileNotFoundError:
        present = sorted(p.name for p in path.parent.glob("*.yaml")) if path.parent.is_dir() else []
        raise ConfigError(f"{path}: no such file; {nearest(path.name, present)}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None


def _kind(value: Any) -> str:
    return _KINDS.get(type(value), f"a {type(value).__name__}")
