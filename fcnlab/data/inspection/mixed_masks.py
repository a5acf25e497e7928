"""Binary masks of two kinds in one dataset: 0 and 255 in some masks, 0 and 1 in others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fcnlab.constants import IGNORE_INDEX


def describe_mixed_masks(value_sets: Mapping[frozenset[int], int], foreground: int) -> str | None:
    """Describe binary masks with different values of the foreground.

    A void border occurs in most masks together with the class that it surrounds. If no mask contains both, 255 is
    probably the foreground of some of them.

    Args:
        value_sets: number of masks by the set of their values.
        foreground: the value of the other class than 0.

    Returns:
        One line; None if 255 and the foreground occur in one mask, or one of them in none, or there are other values.
    """
    if frozenset().union(*value_sets) - {0, foreground, IGNORE_INDEX}:
        return None
    if any({foreground, IGNORE_INDEX} <= values for values in value_sets):
        return None
    white, other = (
        sum(count for values, count in value_sets.items() if value in values) for value in (IGNORE_INDEX, foreground)
    )
    if not white or not other:
        return None
    return (
        f"no mask contains both {foreground} and 255: {white} masks contain only 0 and 255, {other} contain 0 and "
        f"{foreground}: is 255 the foreground there?"
    )


def suggest_names(names: Sequence[str], foreground: int) -> tuple[str, str]:
    """Return the names of two classes; generated ones are replaced by `background` and `foreground`.

    Args:
        names: names of the classes.
        foreground: the value of the second class.
    """
    generated = list(names) == ["class_0", f"class_{foreground}"]
    return ("background", "foreground") if generated else (names[0], names[1])


def find_foreground(values: Sequence[Sequence[int | str]], ignore: Sequence[int | str]) -> int | None:
    """Return the value of the second class of binary masks in which only 255 is ignored.

    Args:
        values: mask values of each class.
        ignore: mask values of ignored pixels.

    Returns:
        The value; None for other classes.
    """
    if {*ignore} - {IGNORE_INDEX} or len(values) != 2 or list(values[0]) != [0] or len(values[1]) != 1:
        return None
    value = values[1][0]
    return value if isinstance(value, int) and value != IGNORE_INDEX else None
