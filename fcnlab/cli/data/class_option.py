"""The options `--classes` and `--ignore` of `fcnlab data add`."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from fcnlab.config.mask_values import MAX_NUMBER, ClassValues, MaskValue, check_values, parse_classes, parse_values
from fcnlab.config.yaml_file import parse
from fcnlab.constants import IGNORE_INDEX
from fcnlab.data.inspection.class_lists import IGNORED_NAME, ListedClass, list_classes, parse_class_list
from fcnlab.data.inspection.class_values import (
    ClassChoice,
    assign_names,
    check_classes,
    format_classes,
    format_items,
    propose_classes,
)
from fcnlab.data.inspection.pair_contents import Contents
from fcnlab.errors import ConfigError, nearest
from fcnlab.paths import check_regular_file, expand_home, is_file

VOID_NAMES = frozenset({IGNORED_NAME, "void", "ignore", "ignored", "unlabeled", "unlabelled"})
"""Names of 255 in lists of other programs that mean ignored pixels."""


_NAME_AND_VALUE = re.compile(r"(?P<name>.*\S)\s*:\s*(?P<value>\d+(?:\+\d+)*|#[0-9a-fA-F]{6})")
_NUMBER_AND_NAME = re.compile(r"(?P<value>\d+)\s*:\s*(?P<name>\S.*)")
_YAML_MARK = re.compile(r"[\[\]{}]|^[\"']|[\"']$")


def decide_classes(contents: Contents, option: str | None, ignore: str | None) -> ClassChoice:
    """Return the classes of `--classes`, or proposed ones, and the ignored values.

    Args:
        contents: statistics of the masks.
        option: value of `--classes`; None if it is not passed.
        ignore: value of `--ignore`; None if it is not passed.

    Raises:
        ConfigError: an option is invalid.
        DataError: the masks contain other values.
    """
    parts = _split(ignore or "")
    values = [part for part in parts if part.isdecimal() or part.startswith("#")]
    try:
        given = None if ignore is None or not values else list(parse_values([_parse_value(part) for part in values]))
    except ValueError as error:
        raise ConfigError(f"--ignore {ignore}: {error}") from None
    choice = propose_classes(contents, given) if option is None else _read_choice(contents, option, given)
    return _ignore_classes(choice, [part for part in parts if part not in values])


def lists_colors(option: str) -> bool:
    """Return whether `--classes` gives the colors of classes, and no numbers.

    Args:
        option: value of the option.

    Raises:
        ConfigError: the option is invalid.
    """
    try:
        listed = _read_classes(option)
        if not isinstance(listed, Mapping):
            return bool(listed) and all(one.color is not None and one.number is None for one in listed)
        return all(isinstance(value, str) for _, values in parse_classes(listed) for value in values)
    except ValueError as error:
        raise ConfigError(f"--classes {option}: {error}") from None


def _ignore_classes(choice: ClassChoice, names: Sequence[str]) -> ClassChoice:
    """Ignore the values of classes, which `--ignore` gives by name.

    Raises:
        ConfigError: there is no such class, or fewer than two classes remain.
    """
    values = dict(choice.classes)
    ignored_classes = dict.fromkeys(_find_class(name, values) for name in names)
    remaining = tuple((name, numbers) for name, numbers in choice.classes if name not in ignored_classes)
    if len(remaining) < 2:
        raise ConfigError(f"--ignore {','.join(names)}: leaves {len(remaining)} classes; a dataset needs at least two")
    ignored = [value for name in ignored_classes for value in values[name]]
    return replace(choice, classes=remaining, ignored=[*choice.ignored, *ignored])


def _find_class(name: str, classes: Collection[str]) -> str:
    """Return the class of a name, which may be written in another case if only one class matches.

    Raises:
        ConfigError: there is no such class, or several differ only in case.
    """
    if name in classes:
        return name
    matches = [each for each in classes if each.casefold() == name.casefold()]
    if len(matches) > 1:
        raise ConfigError(f"--ignore {name}: several classes differ only in case; write one of {', '.join(matches)}")
    if not matches:
        raise ConfigError(
            f"--ignore {name}: {name!r} is neither a number from 0 to {MAX_NUMBER}, nor a color such as '#804080', "
            f"nor a class; {nearest(name, classes)}"
        )
    return matches[0]


def _read_choice(contents: Contents, option: str, given: list[MaskValue] | None) -> ClassChoice:
    """Return the classes of `--classes`.

    Raises:
        ConfigError: the option is invalid.
        DataError: the masks contain other values.
    """
    try:
        listed = _read_classes(option)
        if not isinstance(listed, Mapping):
            if listed[0].name == IGNORED_NAME and listed[0].number in (None, IGNORE_INDEX):
                listed = listed[1:]
                given = [IGNORE_INDEX] if given is None and IGNORE_INDEX in contents.pixels else given
            values = _choose_values(listed, contents)
            if values is None:
                names = [one.name for one in listed]
                if len(names) != 1:  # one name is refused with the values
                    parse_classes(names)
                return assign_names(names, contents, given)
            listed = values
        named = parse_classes(listed)
        ignored = _default_ignored(named, contents) if given is None else given
        check_values(named, ignored)
    except ValueError as error:
        raise ConfigError(f"--classes {option}: {error}") from None
    check_classes(contents, named, ignored)
    return ClassChoice(named, ignored)


def _default_ignored(named: ClassValues, contents: Contents) -> list[MaskValue]:
    taken = {value for _, values in named for value in values}
    return [value for value in contents.values if value == IGNORE_INDEX and value not in taken]


def _choose_values(listed: Sequence[ListedClass], contents: Contents) -> dict[str, list[MaskValue]] | None:
    """Return the numbers or colors of a list, whichever the masks contain; None for a list of names only.

    Raises:
        ValueError: the list has colors, and the masks contain numbers.
    """
    in_colors = isinstance(contents.values[0], str)
    has_numbers = bool(listed) and all(one.number is not None for one in listed)
    has_colors = bool(listed) and all(one.color is not None for one in listed)
    if has_colors and not has_numbers and not in_colors:
        example = format_classes([one.name for one in listed], contents.values)
        raise ValueError(
            f"the file gives colors, and the masks contain the numbers {format_items(contents.values)}; "
            f"pass the numbers, such as {example}"
        )
    if not has_numbers and not (has_colors and in_colors):
        return None
    values: dict[str, list[MaskValue]] = {}
    use_colors = in_colors and has_colors
    for one in listed if use_colors else sorted(listed, key=lambda one: one.number or 0):
        value = one.color if use_colors else one.number
        assert value is not None
        if not (value == IGNORE_INDEX and one.name.lower() in VOID_NAMES):
            values.setdefault(one.name, []).append(value)
    return values


def _read_classes(option: str) -> Mapping[str, Any] | list[ListedClass]:
    """Return a list of classes, or a mapping of names to values, from the command line or a file."""
    path = expand_home(option)
    if not is_file(path) and (not path.suffix or "," in option or "=" in option):
        return _parse_option(option)
    try:
        check_regular_file(path)
        text = path.read_text(encoding="utf-8-sig")  # editors on Windows write a byte order mark
    except UnicodeDecodeError:
        raise ConfigError(f"--classes {option}: is not UTF-8 text; save it as UTF-8") from None
    except OSError as error:
        raise ConfigError(f"--classes {option}: cannot be read: {error.strerror}") from None
    if path.suffix.lower() not in (".yaml", ".yml", ".json"):
        return parse_class_list(text)
    content = _parse_json(text) if path.suffix.lower() == ".json" else _parse_yaml(text, option)
    listed = list_classes(content)
    if listed is None and not isinstance(content, Mapping):
        raise ValueError("expected a list of names, or a mapping such as {road: 0} or {road: '#804080'}")
    return content if listed is None else listed


def _parse_json(text: str) -> Any:
    """Return the content of a JSON file.

    Raises:
        ValueError: the text is not JSON, or contains a key twice in one mapping.
    """
    try:
        return json.loads(text, object_pairs_hook=_to_unique_keys)
    except json.JSONDecodeError as error:
        raise ValueError(f"line {error.lineno}: not valid JSON: {error.msg}") from None
    except RecursionError:
        raise ValueError("not valid JSON: nested too deeply") from None


def _to_unique_keys(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    mapping = dict(pairs)
    if len(mapping) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {twice!r} appears twice")
    return mapping


def _parse_yaml(text: str, option: str) -> Any:
    """Return the content of a YAML file, whose top may be a list, or a mapping of numbers."""
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    first = lines[0].lstrip() if lines else ""
    if first.startswith(("-", "[", "{")) or first.split(":")[0].strip("\"' ").isdecimal():
        return parse("classes:\n" + "".join(f"  {line}\n" for line in text.splitlines()), option)["classes"]
    return parse(text, option)


def _parse_option(option: str) -> list[ListedClass] | dict[str, list[MaskValue]]:
    """Return the names of `a,b,c`, or the names and values of `a=0,b=1+255`.

    Raises:
        ValueError: no name, some names have a value and others have none, a name has two, or the text is in the form of
            a YAML file.
    """
    parts = _split(option)
    if not parts:
        raise ValueError("no class is listed")
    _refuse_yaml(parts)
    if not any("=" in part for part in parts):
        return [ListedClass(part) for part in parts]
    classes: dict[str, list[MaskValue]] = {}
    for part in parts:
        name, equals, values = (piece.strip() for piece in part.rpartition("="))
        if not equals or not name:
            raise ValueError(f"{part!r} has no value; write name=value for each class, such as road=0,car=1+255")
        if name in classes:
            raise ValueError(f"the class {name!r} is listed twice; write its values as {name}=0+1")
        classes[name] = [_parse_value(value.strip()) for value in values.split("+")]
    return classes


def _refuse_yaml(parts: Sequence[str]) -> None:
    """Raise an error for names with values after a colon, brackets or quotes, which would be a part of the name.

    Raises:
        ValueError: a name is written like this; the message has the option to pass, if the text has only one meaning.
    """
    invalid = [part for part in parts if _YAML_MARK.search(part) is not None]
    if not any("=" in part for part in parts):
        invalid += [part for part in parts if _find_value(part) is not None]
    if not invalid:
        return
    plain = [re.sub(r"[\[\]{}\"']", "", part).strip() for part in parts]
    pairs = [_find_value(part) for part in plain]
    written = [f"{pair['name']}={pair['value']}" for pair in pairs if pair is not None]
    if not written and all(plain):
        written = plain
    elif len(written) < len(parts):
        written = []
    remedy = f"pass --classes {shlex.quote(','.join(written))}" if written else "write a,b,c or a=0,b=1+255"
    raise ValueError(f"{invalid[0]!r} is not a name; {remedy}, or a YAML or JSON file")


def _find_value(part: str) -> re.Match[str] | None:
    """Return the name and value of `name: 0` or `0: name`; None for another text."""
    return _NUMBER_AND_NAME.fullmatch(part) or _NAME_AND_VALUE.fullmatch(part)


def _split(option: str) -> list[str]:
    return [part.strip() for part in option.split(",") if part.strip()]


def _parse_value(option: str) -> MaskValue:
    return int(option) if option.isdecimal() else option
