"""Validate plain values as configuration, with one line per error: file, key, problem, valid values."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import cache
from types import UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, overload

from pydantic import BaseModel, TypeAdapter, ValidationError

from fcnlab.config.base import BUILTIN, Config, find_member, literal_types, models_in
from fcnlab.console import format_count
from fcnlab.errors import ConfigError, nearest
from fcnlab.redaction import redact

_TRUTH_WORDS = dict.fromkeys(("yes", "on", "true", "y", "t", "1"), "true") | dict.fromkeys(
    ("no", "off", "false", "n", "f", "0"), "false"
)
"""Words that other programs read as `true` or `false`."""

_SCALAR_ERRORS = frozenset({"bool_type", "int_type", "float_type", "string_type"})
"""Types of pydantic's errors about a value that is no scalar of the expected type."""

_PATTERNS = {
    r"^[a-z][a-z0-9_]*$": "a built-in type, nor the name of an extension: lower-case letters, digits and '_'",
    "^#[0-9a-fA-F]{6}$": "a color such as '#804080'",
}
"""Meaning of the patterns of texts."""

M = TypeVar("M", bound=BaseModel)


@overload
def validate(model: type[M], value: Any, where: str, name: str = "") -> M: ...
@overload
def validate(model: Any, value: Any, where: str, name: str = "") -> Any: ...
def validate(model: Any, value: Any, where: str, name: str = "") -> Any:
    """Validate a value.

    Args:
        model: a model, or a discriminated union of models.
        value: plain values, as YAML has them.
        where: start of each error, such as the path of the file.
        name: key of the value itself, which precedes the keys inside: `recipe.epochs`.

    Returns:
        An instance of the model.

    Raises:
        ConfigError: one error per line: `where: key: problem; valid values`.
    """
    try:
        return _adapter(model).validate_python(value)
    except ValidationError as error:
        problems = [_Problem.locate(model, item) for item in error.errors(include_url=False)]
        mistyped = _describe_mistyped_type(model, value, problems)
        if mistyped is not None:
            raise ConfigError(f"{where}: {name}{'.' if name else ''}{mistyped}") from None
        renamed = {problem.new_key for problem in problems}
        # A value that matches no member of a plain union has an error per member: the first one is reported, of a list
        # the one of the list's member. A required key that is given by its old name is not missing.
        lines = {
            problem.key: f"{where}: {problem.describe_below(name)}"
            for problem in reversed(problems)
            if not (problem.item["type"] == "missing" and problem.key in renamed)
            and not problem.is_less_precise_than_any(problems)
        }
        raise ConfigError("\n".join(reversed(lines.values()))) from None


@cache
def _adapter(model: Any) -> TypeAdapter[Any]:
    return TypeAdapter(model)


def _correct_end(path: Sequence[str], models: Sequence[type[BaseModel]], item: Any) -> tuple[str, ...]:
    """Return the path of an error with the key of a wrong tag, and without the type of a member of a plain union."""
    if item["type"].startswith("union_tag") and isinstance(item["input"], dict):
        return (*path, "type" if "type" in models[0].model_fields else "name")
    if not models and path and path[-1] in ("bool", "int", "float", "str"):
        return tuple(path[:-1])
    return tuple(path)


@dataclass(frozen=True)
class _Problem:
    """One error of pydantic with its location in the file.

    Attributes:
        item: the error as pydantic describes it.
        path: keys and indices of the file that lead to it.
        models: the models that may be at the location; for an unknown or missing key, those that lack it.
        tag: type of the discriminated union that the location is in, if any.
        length: number of values of the list at the location, if it is fixed.
    """

    item: Any
    path: tuple[str, ...]
    models: tuple[type[BaseModel], ...]
    tag: str | None
    length: int | None

    @classmethod
    def locate(cls, model: Any, item: Any) -> _Problem:
        """Follow pydantic's location through the models: select the members of unions, and enter the fields."""
        models, path, tag, length = models_in(model), [], None, None
        loc = [str(part) for part in item["loc"]]
        entered = len(loc) - (item["type"] == "missing")  # the models that lack a key are those before it
        for position, part in enumerate(loc):
            if len(models) > 1:  # pydantic names the member of the union, the file does not
                if part == BUILTIN:  # the tag of the member follows
                    continue
                if (member := find_member(models, part)) is not None:
                    models, tag = [member], part
                    continue
            if not part.startswith(("constrained-", "list[", "tuple[", "[key]")):
                path.append(part)
            fields = [m.model_fields[part] for m in models if part in m.model_fields]
            if fields:
                length = next((count for field in fields if (count := _find_length(field.annotation))), None)
            if fields and position < entered:
                models, tag = [inner for field in fields for inner in models_in(field.annotation)], None
        problem = cls(item, _correct_end(path, models, item), tuple(models), tag, length)
        return replace(problem, path=problem.path[:-1]) if problem.is_item else problem

    @property
    def key(self) -> str:
        return ".".join(self.path)

    def is_less_precise_than_any(self, others: Sequence[_Problem]) -> bool:
        """Return whether a list was refused as a number or text, and another error concerns its items or length."""
        if not isinstance(self.item["input"], list) or self.item["type"] not in _SCALAR_ERRORS:
            return False
        key, items = self.key, f"{self.key}."
        return any(
            other.key.startswith(items) or (other.key == key and other.item["type"] not in _SCALAR_ERRORS)
            for other in others
        )

    def describe_below(self, name: str) -> str:
        """Return the line of the error, without the file; `name` is the key of the validated value, if it has one."""
        key = ".".join(([name] if name else []) + list(self.path))
        what = self._describe(key)
        return f"{key}: {what}" if key else what

    @property
    def new_key(self) -> str | None:
        """The new name of an old key, with the path to it."""
        if self.item["type"] != "extra_forbidden":
            return None
        tables = [m.renamed for m in self.models if issubclass(m, Config) and self.path[-1] in m.renamed]
        return ".".join([*self.path[:-1], tables[0][self.path[-1]]]) if tables else None

    def _describe(self, key: str) -> str:
        item = self.item
        match item["type"]:
            case "extra_forbidden":
                if self.new_key is not None:
                    return f"renamed to {self.new_key}"
                known = {name for model in self.models for name in model.model_fields}
                return f"unknown key{self._of_type}; {nearest(self.path[-1], known)}"
            case "missing" if self.is_item:
                return f"give {self._allowed_count}, not {_show(item['input'])}"
            case "missing":
                return f"missing; this key is required{self._of_type}{_list(self._literals())}"
            case "literal_error":
                valid = item["ctx"]["expected"].replace(" or ", ", ").replace("'", "").split(", ")
                return f"{_show(item['input'])} is not valid; {nearest(str(item['input']), valid)}"
            case "union_tag_not_found" | "model_attributes_type" | "model_type" | "dict_type" if not isinstance(
                item["input"], dict
            ):
                return self._describe_mapping(key)
            case "too_long" | "too_short":
                return f"give {self._allowed_count}, not {_show(item['input'])}"
            case "string_pattern_mismatch" if item["ctx"]["pattern"] in _PATTERNS:
                return f"{_show(item['input'])} is not {_PATTERNS[item['ctx']['pattern']]}"
            case "list_type" | "tuple_type":
                return f"input should be a list, such as [a, b], not {_show(item['input'])}"
            case "union_tag_not_found":
                return f"missing; this key is required{_list(self._literals())}"
            case "union_tag_invalid":
                given = item["input"].get(self.path[-1])
                return f"{_show(given)} is not valid; {nearest(str(given), self._literals())}"
            case "bool_type" if item["loc"][-1] == "bool":  # the first member of a union of plain types
                return f"input should be true, false, a number or a text, not {_show(item['input'])}"
            case "bool_type":
                word = _TRUTH_WORDS.get(str(item["input"]).lower())
                return f"input should be true or false, not {_show(item['input'])}" + (
                    f"; write {word}" if word else ""
                )
            case "float_type" | "int_type" if (decimal := _find_decimal_comma(item["input"])) is not None:
                return f"input should be a valid number, not {_show(item['input'])}; use a decimal point: {decimal}"
            case "string_type" if item["loc"][-1] == "[key]" and isinstance(item["input"], int | float):
                return (
                    f"the key {item['input']} is a number; use a decimal point in numbers, such as 0.001, and write a "
                    "key that is a number in quotes"
                )
            case "float_type" | "int_type" if isinstance(item["input"], str) and _is_number(item["input"]):
                kind = "integer" if item["type"] == "int_type" and not self._is_of_numbers else "number"
                return f"input should be a valid {kind}, not the text {_show(item['input'])}; write it without quotes"
            case "int_type" if self._is_of_numbers:
                return f"input should be a valid number, not {_show(item['input'])}"
            case "value_error":
                return str(item["ctx"]["error"])
            case _:
                return f"{item['msg'][0].lower() + item['msg'][1:]}, not {_show(item['input'])}"

    def _describe_mapping(self, key: str) -> str:
        """Describe a value that is no mapping; a name, or names, that a key of the mapping takes are put into it."""
        given = self.item["input"]
        tag = next((tag for tag in ("type", "name") if self._list_literals(tag)), "")
        for word in given if isinstance(given, list) else [given]:
            for name in get_close_matches(str(word).casefold(), self._list_literals(tag), n=1):
                [model] = [model for model in self.models if name in _list_literals(model, tag)]
                others = [f"{field}: ..." for field in _list_required(model) if field != tag]
                example = ", ".join([f"{tag}: {name}", *others])
                remedy = f"; to change only the {tag}, set {key}.{tag}" if key else ""
                return f"input should be a mapping, such as {{{example}}}, not {_show(given)}{remedy}"
        required = ", ".join(f"{name}: ..." for name in _list_required(self.models[0])) if len(self.models) == 1 else ""
        return f"input should be a mapping, such as {{{required or 'key: value'}}}, not {_show(given)}"

    @property
    def is_item(self) -> bool:
        """True if a list has fewer values than its tuple, of which pydantic reports each missing one."""
        return self.item["type"] == "missing" and isinstance(self.item["loc"][-1], int)

    @property
    def _allowed_count(self) -> str:
        """The number of values that a list, or of keys that a mapping, must have."""
        if self.length is not None:
            return f"{self.length} values"
        context = self.item["ctx"]
        word, count = (
            ("at most", context.get("max_length")) if "max_length" in context else ("at least", context["min_length"])
        )
        return f"{word} {format_count(count, 'key' if isinstance(self.item['input'], dict) else 'value')}"

    @property
    def _is_of_numbers(self) -> bool:
        """True if an integer is the first member of a union of integers and other numbers."""
        return self.item["loc"][-1] == "int"

    @property
    def _of_type(self) -> str:
        """The type of the union's member that the location is in, as the file writes it."""
        name = "type" if any("type" in model.model_fields for model in self.models) else "name"
        return f" with {name}: {self.tag}" if self.tag is not None else ""

    def _literals(self) -> list[str]:
        """List the values of the key, if there is a fixed number of them."""
        return self._list_literals(self.path[-1])

    def _list_literals(self, key: str) -> list[str]:
        return [value for model in self.models for value in _list_literals(model, key)]


def _list_literals(model: type[BaseModel], key: str) -> list[str]:
    """List the values of a key of a model, if there is a fixed number of them."""
    annotation = model.model_fields[key].annotation if key in model.model_fields else None
    return [str(value) for value in get_args(annotation)] if get_origin(annotation) is Literal else []


def _list_required(model: type[BaseModel]) -> list[str]:
    return [name for name, field in model.model_fields.items() if field.is_required()]


def _find_length(annotation: Any) -> int | None:
    """Return the number of values of a tuple, also of one in a union; None if it varies, or for other types."""
    if get_origin(annotation) is tuple:
        return None if Ellipsis in get_args(annotation) else len(get_args(annotation))
    members = get_args(annotation) if get_origin(annotation) in (Annotated, Union, UnionType) else ()
    return next((length for member in members if (length := _find_length(member)) is not None), None)


def _describe_mistyped_type(model: Any, value: Any, problems: Sequence[_Problem]) -> str | None:
    """Return the error of an invalid entry whose type is almost a built-in one; None for other entries.

    Any type is accepted, because it may be an extension, so that pydantic reports the keys as those of a custom type.
    """
    if not isinstance(value, dict) or not any(problem.tag == "custom" for problem in problems):
        return None
    builtin = literal_types(model)
    given = value.get("type")
    if not isinstance(given, str) or not get_close_matches(given.casefold(), builtin):
        return None
    return f"type: {_show(given)} is not valid; {nearest(str(given), builtin)}"


def _find_decimal_comma(value: Any) -> str | None:
    """Return a text that is a number with a decimal comma, with a decimal point; None for another value."""
    if not isinstance(value, str) or re.fullmatch(r"[-+]?\d+,\d+([eE][-+]?\d+)?", value) is None:
        return None
    return value.replace(",", ".")


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _list(values: list[str]) -> str:
    return f"; {nearest('', values)}" if values else ""


def _show(value: Any) -> str:
    try:
        text = json.dumps(value, default=str, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError):  # keys that are not strings, or a YAML alias of itself
        text = repr(value)
    text = redact(text)  # before it is shortened
    return text if len(text) <= 80 else text[:77] + "..."
