"""Classes and ignored values of masks in YAML: numbers from 0 to 65535, or colors such as '#804080'."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from fcnlab.redaction import find_control_character

MaskValue = int | str
"""A value of a mask: a number in one channel, or a color such as '#804080'."""

ClassValues = tuple[tuple[str, tuple[MaskValue, ...]], ...]
"""Classes in the order of their labels: the name and the mask values of each."""

MAX_CLASSES = 255
"""Maximum number of classes: label 255 is that of ignored pixels."""

MAX_NUMBER = 65535
"""Largest class number in a mask, of 16 bits."""


def parse_classes(value: Any) -> ClassValues:
    """Normalize the classes of a YAML file.

    Args:
        value: a list of names, whose mask values are 0, 1, ..., or a mapping of names to one or more mask values.

    Returns:
        The classes in the order of their labels.

    Raises:
        ValueError: the value is neither, or is empty, ambiguous or out of range.

    >>> parse_classes({"road": 0, "car": ["#804080", "#000000"]})
    (('road', (0,)), ('car', ('#804080', '#000000')))
    """
    if isinstance(value, tuple):  # already normalized
        return value
    if not isinstance(value, list | Mapping):
        raise ValueError("give a list of names, or a mapping such as {road: 0} or {road: '#804080'}")
    invalid = [name for name in value if not isinstance(name, str) or not name.strip()]
    if invalid:
        raise ValueError(f"the name of a class is a string, not {invalid[0]!r}; write it in quotes")
    for name in value:
        if (character := find_control_character(name)) is not None:
            raise ValueError(f"the name of a class contains '{character}'")
    if isinstance(value, list):
        duplicates = [name for i, name in enumerate(value) if name in value[:i]]
        if duplicates:
            raise ValueError(f"the class {duplicates[0]!r} is listed twice")
        value = {name: number for number, name in enumerate(value)}
    if not 2 <= len(value) <= MAX_CLASSES:
        raise ValueError(f"give 2 to {MAX_CLASSES} classes, not {len(value)}")
    classes = tuple((name, parse_values(values, f"class {name}: ")) for name, values in value.items())
    empty = [name for name, values in classes if not values]
    if empty:
        raise ValueError(f"class {empty[0]}: has no mask value")
    return classes


def parse_values(value: Any, prefix: str = "") -> tuple[MaskValue, ...]:
    """Normalize one mask value or a list of mask values.

    Args:
        value: a number, a color, or a list of them.
        prefix: start of error messages.

    Returns:
        The values; colors in lower case.

    Raises:
        ValueError: a value is neither a number from 0 to 65535 nor a color.
    """
    if value is None:
        raise ValueError(f"{prefix}the value is empty; write a color in quotes, such as '#804080'")
    return tuple(_parse_value(item, prefix) for item in (value if isinstance(value, list | tuple) else [value]))


def check_values(classes: ClassValues, ignore: Iterable[MaskValue]) -> None:
    """Check that no mask value has two meanings, and that numbers and colors are not mixed.

    Args:
        classes: names and mask values.
        ignore: mask values of ignored pixels.

    Raises:
        ValueError: a value appears twice, or there are both numbers and colors.
    """
    meaning: dict[MaskValue, str] = {}
    owners = [(value, f"class {name}") for name, values in classes for value in values]
    for value, owner in [*owners, *((value, "ignore") for value in ignore)]:
        if value in meaning:
            raise ValueError(f"the value {value!r} belongs to {meaning[value]} and to {owner}; keep one of them")
        meaning[value] = owner
    if len({type(value) for value in meaning}) > 1:
        number, color = (next(v for v in meaning if isinstance(v, kind)) for kind in (int, str))
        raise ValueError(
            f"masks have either numbers or colors, not both: {number!r} ({meaning[number]}) and {color!r} "
            f"({meaning[color]})"
        )


def to_yaml_classes(classes: ClassValues) -> dict[str, MaskValue | list[MaskValue]]:
    """Convert classes to a mapping for YAML; the inverse of `parse_classes`.

    Args:
        classes: names and mask values.

    Returns:
        Names with one value, or a list of values.
    """
    return {name: values[0] if len(values) == 1 else list(values) for name, values in classes}


def _parse_value(value: Any, prefix: str) -> MaskValue:
    if isinstance(value, str) and re.fullmatch("#[0-9a-fA-F]{6}", value):
        return value.lower()
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_NUMBER:
        return value
    raise ValueError(f"{prefix}{value!r} is neither a number from 0 to {MAX_NUMBER} nor a color such as '#804080'")
