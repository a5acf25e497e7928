"""Classes and ignored values of masks as YAML may say them: numbers 0..255, or colours '#rrggbb'."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

MaskValue = int | str
"""A value of a mask: a number in one 8-bit channel, or a colour such as '#804080'."""

Named = tuple[tuple[str, tuple[MaskValue, ...]], ...]
"""Classes in the order of their labels: a name, and the values of the mask that mean it."""

MOST = 255
"""How many classes there can be at most; label 255 is of pixels that do not count."""


def classes_of(said: Any) -> Named:
    """Normalise a list of names (their values are 0, 1, ...) or a mapping of names to a value or a list of values.

    Raises:
        ValueError: what is said is neither, or is empty, ambiguous or out of range.
    """
    if isinstance(said, tuple):  # normalised already
        return said
    if isinstance(said, list):
        twice = [name for i, name in enumerate(said) if name in said[:i]]
        if twice:
            raise ValueError(f"the class {twice[0]!r} stands twice")
        said = {name: number for number, name in enumerate(said)}
    if not isinstance(said, Mapping):
        raise ValueError("classes are a list of names, or a mapping such as {road: 0} or {road: '#804080'}")
    strange = [name for name in said if not isinstance(name, str) or not name.strip()]
    if strange:
        raise ValueError(f"the name of a class is a text, not {strange[0]!r}; write it in quotes")
    if not said:  # the default, of datasets whose classes are known
        return ()
    if not 2 <= len(said) <= MOST:
        raise ValueError(f"there are 2 to {MOST} classes, not {len(said)}")
    named = tuple((name, values_of(value, f"class {name}: ")) for name, value in said.items())
    empty = [name for name, values in named if not values]
    if empty:
        raise ValueError(f"class {empty[0]}: no value of the mask means it")
    return named


def values_of(said: Any, where: str = "") -> tuple[MaskValue, ...]:
    """Normalise one value of masks or a list of them; colours come out in lower case.

    Raises:
        ValueError: a value is neither a number from 0 to 255 nor a colour.
    """
    if said is None:
        raise ValueError(f"{where}nothing is said; a colour stands in quotes, as in '#804080'")
    return tuple(_value(value, where) for value in (said if isinstance(said, list | tuple) else [said]))


def check_values(classes: Named, ignore: Iterable[MaskValue]) -> None:
    """Check that no value means two things, and that numbers and colours are not mixed.

    Raises:
        ValueError: a value stands twice, or some are numbers and some colours.
    """
    meaning: dict[MaskValue, str] = {}
    for value, means in [
        *((v, f"class {n}") for n, values in classes for v in values),
        *((v, "ignore") for v in ignore),
    ]:
        if value in meaning:
            raise ValueError(f"the value {value!r} stands under {meaning[value]} and again under {means}")
        meaning[value] = means
    if len({type(value) for value in meaning}) > 1:
        number, colour = (next(v for v in meaning if isinstance(v, kind)) for kind in (int, str))
        raise ValueError(
            f"masks hold numbers or colours, and {number!r} ({meaning[number]}) and {colour!r} ({meaning[colour]}) "
            "are one of each"
        )


def as_said(classes: Named) -> dict[str, MaskValue | list[MaskValue]]:
    """Classes as a mapping that YAML can say; the inverse of `classes_of`."""
    return {name: values[0] if len(values) == 1 else list(values) for name, values in classes}


def _value(value: Any, where: str) -> MaskValue:
    if isinstance(value, str) and re.fullmatch("#[0-9a-fA-F]{6}", value):
        return value.lower()
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 255:
        return value
    raise ValueError(f"{where}{value!r} is neither a number from 0 to 255 nor a colour such as '#804080'")
