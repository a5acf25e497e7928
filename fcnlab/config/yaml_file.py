"""Reading and writing of YAML: the only module that does so.

Scalars are read by the core schema of YAML 1.2: `off`, `yes` and `no` are words, `010` is ten, `1e-3` is a number.
PyYAML implements YAML 1.1, in which these are false, true, false, eight and a word, so its resolvers are replaced here.
ruamel.yaml reads YAML 1.2, but more slowly, and its round trip of comments is not needed: entries are added to registry
files as text.
"""

from __future__ import annotations

import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any, ClassVar

import yaml

from fcnlab.errors import ConfigError, nearest
from fcnlab.paths import check_regular_file, is_folder
from fcnlab.redaction import find_control_character

MAX_BYTES = 2**20
"""Largest size of a file."""

MAX_DEPTH = 50
"""Deepest nesting of mappings and lists."""

MAX_NODES = 500_000
"""Most values of a file with aliases written out; aliases of aliases multiply them."""

SHOWN = 40
"""Characters of an invalid value in a message."""

_KINDS = {list: "a list", str: "a string", int: "a number", float: "a number", bool: "true or false", dict: "a mapping"}

_TAG = "tag:yaml.org,2002:"
_CORE_SCHEMA = (
    ("null", r"~|null|Null|NULL|", "~nN\0"),
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", "-+.0123456789"),
    ("float", r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", "-+."),
    ("merge", r"<<", "<"),  # of YAML 1.1, but widely used
)
"""Tag, pattern and first characters of plain scalars that are not strings: YAML 1.2.2, section 10.3.2."""


class _Loader(yaml.SafeLoader):
    """Safe loader of YAML 1.2 without duplicate keys, deep nesting, aliases that multiply and control characters."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - declared so in PyYAML
    yaml_constructors: ClassVar[dict[str | None, Any]] = {
        f"{_TAG}{name}": yaml.SafeLoader.yaml_constructors[f"{_TAG}{name}"]
        for name in ("null", "bool", "int", "float", "str", "seq", "map")
    } | {None: yaml.SafeLoader.yaml_constructors[None]}

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise yaml.MarkedYAMLError(
                problem=f"nested too deeply, more than {MAX_DEPTH} levels", problem_mark=self.peek_event().start_mark
            )
        node: yaml.Node | None = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def get_single_node(self) -> yaml.Node | None:
        node: yaml.Node | None = super().get_single_node()
        if node is not None and _count_nodes(node, {}) > MAX_NODES:
            raise yaml.YAMLError(f"more than {MAX_NODES:,} values with aliases written out")
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        lines: dict[Hashable, int] = {}
        for key_node, _ in node.value if isinstance(node, yaml.MappingNode) else ():  # `!!map` may be at other nodes
            if not isinstance(key_node, yaml.ScalarNode) or key_node.tag == f"{_TAG}merge":
                continue
            key, line = self.construct_object(key_node), key_node.start_mark.line + 1
            if key in lines:
                raise yaml.MarkedYAMLError(problem=f"the key '{key}' appears twice, in lines {lines[key]} and {line}")
            lines[key] = line
        return super().construct_mapping(node, deep)

    def construct_text(self, node: yaml.ScalarNode) -> str:
        text = str(self.construct_scalar(node))
        character = find_control_character(text)
        if character is not None:
            raise yaml.MarkedYAMLError(problem=f"a text contains '{character}'", problem_mark=node.start_mark)
        return text

    def construct_number(self, node: yaml.ScalarNode) -> int:
        value = str(self.construct_scalar(node))
        return int(value, {"0o": 8, "0x": 16}.get(value[:2], 10))

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ValueError, LookupError):  # the text of an explicit tag, such as `!!int x`, or thousands of digits
            text = node.value if len(node.value) <= SHOWN else f"{node.value[:SHOWN]}..."
            problem = f"'{text}' is not a valid {node.tag.removeprefix(_TAG)}"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark) from None


class _Dumper(yaml.SafeDumper):
    """Safe dumper that quotes strings that YAML 1.1 or 1.2 would read as something else."""

    def represent_text(self, text: str) -> yaml.ScalarNode:
        has_breaks = any(character in text for character in "\x85\u2028\u2029")  # only double quotes keep these
        return self.represent_scalar(f"{_TAG}str", text, style='"' if has_breaks else None)


for _name, _pattern, _first in _CORE_SCHEMA:
    for _class in (_Loader, _Dumper):
        _class.add_implicit_resolver(
            f"{_TAG}{_name}", re.compile(rf"^(?:{_pattern})$"), ["" if c == "\0" else c for c in _first]
        )
_Dumper.add_representer(str, _Dumper.represent_text)
_Loader.add_constructor(f"{_TAG}str", _Loader.construct_text)
_Loader.add_constructor(f"{_TAG}int", _Loader.construct_number)


def _count_nodes(node: yaml.Node, known: dict[int, int | None]) -> int:
    """Count the values below a node, those of an alias each time it is used."""
    if id(node) in known:
        count = known[id(node)]
        if count is None:
            raise yaml.MarkedYAMLError(problem="an anchor contains its own alias", problem_mark=node.start_mark)
        return count
    known[id(node)] = None
    if isinstance(node, yaml.MappingNode):
        children = [child for pair in node.value for child in pair]
    else:
        children = node.value if isinstance(node, yaml.SequenceNode) else []
    known[id(node)] = count = 1 + sum(_count_nodes(child, known) for child in children)
    return count


def parse(text: str, where: str) -> dict[str, Any]:
    """Parse YAML 1.2 whose top is a mapping with string keys.

    Args:
        text: the YAML.
        where: start of error messages, such as the path of the file.

    Returns:
        The mapping; empty for an empty text.

    Raises:
        ConfigError: not YAML, a duplicate key, not a mapping, nested too deeply, or too large.
    """
    try:
        value = _Loader(text).get_single_data()
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ConfigError(f"{where}{line}: not valid YAML: {error.problem}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{where}: not valid YAML: {' '.join(str(error).split())}") from None
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
        path: path of the file.

    Returns:
        The mapping in the file.

    Raises:
        ConfigError: the file is missing, unreadable, too large, not UTF-8, or not a YAML mapping.
    """
    try:
        check_regular_file(path)
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise ConfigError(
                f"{path}: has {size / 2**20:.1f} MiB; a YAML file of at most {MAX_BYTES // 2**20} MiB is expected"
            )
        return parse(path.read_text(encoding="utf-8"), str(path))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file{_suggest_files(path)}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: cannot be read: {error}; save it as UTF-8") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror or error}") from None


def _suggest_files(path: Path) -> str:
    """Return the end of the error of a missing file: the files in its folder or, if there are none, those of a lab."""
    folder = path.parent
    files = (sorted(folder.glob("*.yaml")) or sorted(folder.glob("experiments/*.yaml"))) if is_folder(folder) else []
    if not files:
        return f", and no YAML file in {folder.absolute()}"
    same = [file for file in files if file.stem == path.name]
    if same:
        return f"; write {same[0]}"
    return f"; {nearest(path.name, [file.relative_to(folder).as_posix() for file in files])}"


def dump(value: Any, *, flow: bool | None = False, width: float = 110) -> str:
    """Format plain values as YAML that every reader of YAML 1.1 and 1.2 understands.

    Args:
        value: mappings, lists, strings, numbers, booleans and None.
        flow: True writes everything on one line, None only the innermost mappings and lists.
        width: columns after which lines are broken.

    Returns:
        The YAML text.

    Raises:
        ConfigError: a value is none of these.
    """
    try:
        text: str = yaml.dump(
            value, Dumper=_Dumper, sort_keys=False, default_flow_style=flow, width=width, allow_unicode=True
        )
    except yaml.representer.RepresenterError as error:
        unsupported = error.args[-1]
        kind = type(unsupported)
        raise ConfigError(
            f"{unsupported!r} is of type {kind.__module__}.{kind.__qualname__}; use mappings, lists, strings, numbers, "
            "true or false"
        ) from None
    return text


def find_key_lines(text: str) -> list[tuple[str, int]]:
    """Return the top-level keys of a valid mapping with their line numbers from 0.

    Args:
        text: YAML that `parse` accepts.
    """
    top = _Loader(text).get_single_node()
    assert isinstance(top, yaml.MappingNode)
    return [(str(key.value), key.start_mark.line) for key, _ in top.value]


def _kind(value: Any) -> str:
    return _KINDS.get(type(value), f"a {type(value).__name__}")
