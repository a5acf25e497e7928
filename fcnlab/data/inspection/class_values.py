"""The values of masks that belong to each class: proposed, or assigned to a list of names."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fcnlab.config.mask_values import MAX_CLASSES, ClassValues, MaskValue
from fcnlab.console import format_count
from fcnlab.constants import IGNORE_INDEX
from fcnlab.data.cache.label_counts import LabelCounts, no_counts
from fcnlab.data.datasets.base import FileSplit
from fcnlab.data.inspection.interpolated_masks import describe_interpolation, find_interpolated_values, gray_level
from fcnlab.data.inspection.pair_contents import Contents
from fcnlab.errors import DataError, list_some

MOST_LABELS = 64
"""Numbers from this one on are gray levels, unless a fourth of the numbers below the greatest occur."""

SHOWN = 10
"""Maximum number of names and values that a message lists."""

BLACK_AND_WHITE = ["#000000", "#ffffff"]
"""Colors of a binary mask that is saved as an RGB image."""


@dataclass(frozen=True)
class ClassChoice:
    """The meaning of the values of masks.

    Attributes:
        classes: names and values in the order of the labels.
        ignored: ignored values.
        note: description of an assignment that the user did not write; empty if there is none.
    """

    classes: ClassValues
    ignored: list[MaskValue]
    note: str = ""


def propose_classes(contents: Contents, ignore: Sequence[MaskValue] | None) -> ClassChoice:
    """Propose classes with generated names, and ignored values.

    By default 255 is ignored, unless the masks contain only 0 and 255 (or black and white), which become two classes,
    or 255 is a frequent gray level among others.

    Args:
        contents: statistics of the masks.
        ignore: ignored values; None for the default.

    Raises:
        DataError: fewer than two classes remain, or the masks were interpolated.
    """
    values = contents.values
    _refuse_interpolated(contents, [value for value in values if value not in (ignore or ())])
    if ignore is None and list(values) in ([0, IGNORE_INDEX], BLACK_AND_WHITE):
        return ClassChoice((("background", (values[0],)), ("foreground", (values[1],))), [])
    ignored: list[MaskValue] = list(ignore or ())
    if (
        ignore is None
        and IGNORE_INDEX in values
        and not (len(values) > 2 and _is_frequent_level(IGNORE_INDEX, contents))
    ):
        ignored = [IGNORE_INDEX]
    remaining = [value for value in values if value not in ignored]
    if not 2 <= len(remaining) <= MAX_CLASSES:
        raise DataError(
            f"the masks contain {format_items(values)}, which gives {len(remaining)} classes; a dataset has 2 to "
            f"{MAX_CLASSES}: assign the values to classes with --classes a=0,b=1+2, or ignore some with --ignore"
        )
    return ClassChoice(tuple((_generate_name(value), (value,)) for value in remaining), ignored)


def assign_names(names: Sequence[str], contents: Contents, ignore: Sequence[MaskValue] | None) -> ClassChoice:
    """Assign a list of names to the values of masks.

    As many names as values are assigned in ascending order, which gives 0, 1, ... in most datasets and 0 and 255 in
    binary masks. By default 255 is ignored where the names are as many as the other values, unless it is a frequent
    gray level among others.

    Args:
        names: names of the classes, in the order of the labels.
        contents: statistics of the masks.
        ignore: ignored values; None for the default.

    Raises:
        DataError: the names are more or fewer than the values, the masks contain colors, which have no order, or they
            were interpolated.
    """
    values = contents.values
    _refuse_interpolated(contents, [value for value in values if value not in (ignore or ())])
    numbers = {value: level for value in values if (level := gray_level(value)) is not None}
    if len(numbers) < len(values):
        raise DataError(
            f"the masks contain colors ({format_items(values)}), and --classes lists only names; assign each name its "
            f"color, such as {_format_option('--classes', f'{names[0]}={values[0]}')}, or in a YAML file with one "
            f"class per line, such as `{names[0]}: '{values[0]}'`"
        )
    remaining = [value for value in values if value not in (ignore or ())]
    ignored = [] if ignore is None else list(ignore)
    void = [value for value in remaining if numbers[value] == IGNORE_INDEX]
    if ignore is None and len(remaining) > 2 and void:
        is_class = _is_class(names, [numbers[value] for value in remaining]) or _is_frequent_level(void[0], contents)
        ignored = [] if is_class else void
        remaining = [value for value in remaining if value not in ignored]
    if len(names) != len(remaining) or len(names) == 1:
        raise DataError(
            _explain_mismatch(names, remaining, ignored, numbers, contents.main_value)
            + _describe_rare(contents, remaining)
        )
    classes = tuple((name, (value,)) for name, value in zip(names, remaining, strict=True))
    return ClassChoice(classes, ignored, _describe_order(classes, numbers))


def _refuse_interpolated(contents: Contents, values: Sequence[MaskValue]) -> None:
    """Raise an error if interpolation has produced some of the values that are not assigned explicitly."""
    found = find_interpolated_values(contents.pixels, contents.by_mask) if len(values) > 2 else []
    if not set(values).isdisjoint(found):
        raise DataError(describe_interpolation(found, contents.pixels))


def _is_frequent_level(void: MaskValue, contents: Contents) -> bool:
    """Return whether 255, or white, is the main value of gray masks such as 0, 128 and 255, or of nearly binary masks.

    Otherwise it is a border or unlabeled, as in masks with the numbers of classes.
    """
    if void != contents.main_value:
        return False
    others = [value for value in contents.values if value not in (void, contents.background)]
    highest = max(level for value in others if (level := gray_level(value)) is not None)
    rare = 10 * sum(contents.pixels[value] for value in others) < contents.pixels[void]
    is_binary = rare and contents.pixels[contents.background] > contents.pixels[void]
    return is_binary or (highest >= MOST_LABELS and 4 * len(others) < highest)


def _is_class(names: Sequence[str], values: Sequence[int]) -> bool:
    """Return whether 255, the last value, is a class: all values have a name, and the others are not labels.

    Numbers below that of the names are labels, some of which may have no pixel: then 255 is a border as in PASCAL VOC.
    """
    others = values[:-1]
    return len(names) == len(values) and (len(others) == 1 or max(others) >= len(names))


def _describe_order(classes: ClassValues, numbers: Mapping[MaskValue, int]) -> str:
    """Describe the assignment of names to values other than 0, 1, ..."""
    if [numbers[values[0]] for _, values in classes] == list(range(len(classes))):
        return ""
    return "the names are assigned to the values in ascending order: " + format_items(
        [f"{values[0]} -> {name}" for name, values in classes]
    )


def _explain_mismatch(
    names: Sequence[str],
    values: Sequence[MaskValue],
    ignored: Sequence[MaskValue],
    numbers: Mapping[MaskValue, int],
    main_value: MaskValue | None,
) -> str:
    """Return the error for a mismatch between class names and mask values, with an assignment to edit."""
    besides = f" besides the ignored {format_items(ignored)}" if ignored else ""
    message = (
        f"--classes lists {format_count(len(names), 'name')} ({format_items(names)}), and the masks contain "
        f"{format_count(len(values), 'value')}{besides}: {format_items(values)}"
    )
    if len(names) == 1:
        example = _format_joined(["background", *names], values)
        return f"{message}; a dataset needs at least two classes, such as {example}"
    if len(names) < len(values):
        others = values[len(names) :]
        ignore = f", or pass {_format_option('--ignore', ','.join(map(str, [*ignored, *others])))}"
        return (
            f"{message}; name every value, {'or ' if main_value in others else ''}give a class several values, such as "
            f"{_format_joined(names, values)}{ignore if main_value not in others else ''}"
        )
    void = [value for value in ignored if numbers.get(value) == IGNORE_INDEX]
    at = {numbers[value]: value for value in values}
    absent = [f"{number} ({name})" for number, name in enumerate(names) if number not in at]
    present = [name for number, name in enumerate(names) if number in at]
    as_class = ""
    if void and len(names) == len(values) + len(void):
        as_class = f"; if {void[0]} is a class, pass {format_classes(names, [*values, *void])} without --ignore"
        if present == list(names[:-1]):
            return message + as_class
    if len(present) < len(values):
        return f"{message}; assign the values that occur, such as {format_classes(names, values)}{as_class}"
    remedy = f"name the values that occur: {format_classes(present, values)}"
    return f"{message}; no mask contains {format_items(absent)}; {remedy}{as_class}"


def check_classes(contents: Contents, classes: ClassValues, ignore: Sequence[MaskValue]) -> None:
    """Check that every value of the masks is a class or ignored.

    Args:
        contents: statistics of the masks.
        classes: the classes.
        ignore: ignored values.

    Raises:
        DataError: values are undefined (listed with their share of the pixels), or classes have numbers and masks
            colors, or the masks were interpolated.
    """
    defined = {value for _, values in classes for value in values} | {*ignore}
    first = contents.values[0]
    if not any(isinstance(value, type(first)) for value in defined):
        has, listed = ("colors", "numbers") if isinstance(first, str) else ("numbers", "colors")
        raise DataError(
            f"the masks contain {has} ({format_items(contents.values)}), but --classes lists {listed}; list the {has}, "
            f"such as {_format_option('--classes', f'{classes[0][0]}={first}')}, or in a YAML file with one class per "
            "line"
        )
    if any(isinstance(value, int) for value in defined):
        defined |= {IGNORE_INDEX}
    undefined = [value for value in contents.values if value not in defined]
    if undefined:
        total = sum(contents.pixels.values())
        _refuse_interpolated(contents, undefined)
        shares = [f"{value!r} ({100 * contents.pixels[value] / total:.2f} % of the pixels)" for value in undefined]
        option = f", or pass {_format_option('--ignore', ','.join(map(str, [*ignore, *undefined])))}"
        raise DataError(
            f"the masks contain {format_items(shares)}, neither a class nor ignored; add a class to --classes"
            f"{option if contents.main_value not in undefined else ''}{_describe_rare(contents, undefined)}"
        )


def _describe_rare(contents: Contents, values: Sequence[MaskValue]) -> str:
    """Name the mask of each value that only one of several masks contains, which may be a mistake in that mask."""
    if len(contents.by_mask) < 3:
        return ""
    rare = [value for value in values if contents.masks[value] == 1]
    places = [
        f"only {mask} contains {value}" for value in rare for mask, found in contents.by_mask.items() if value in found
    ]
    return f"; {format_items(places)}" if places else ""


def format_classes(names: Sequence[str], values: Sequence[MaskValue]) -> str:
    """Return the option `--classes` that assigns values to names; of the longer one, the rest is left out.

    Args:
        names: names of the classes.
        values: the value of each class.
    """
    return _format_option("--classes", ",".join(f"{name}={v}" for name, v in zip(names, values, strict=False)))


def _format_joined(names: Sequence[str], values: Sequence[MaskValue]) -> str:
    """Return the option `--classes` that assigns a value to each name, and all remaining ones to the last name."""
    first = len(names) - 1
    rest = "+".join(map(str, values[first:]))
    return format_classes(names, [*values[:first], rest] if rest else values)


def count_split_labels(split: FileSplit, contents: Contents, choice: ClassChoice) -> LabelCounts:
    """Return the number of pixels of each label in a split, int64 [256], from the values of its masks.

    Args:
        split: the split.
        contents: statistics of the masks.
        choice: meaning of the values.
    """
    label_of = {value: label for label, (_, values) in enumerate(choice.classes) for value in values}
    counts = no_counts()
    for pair in split.pairs:
        for value, pixels in contents.by_mask[pair.mask].items():
            counts[label_of.get(value, IGNORE_INDEX)] += pixels
    return counts


def _generate_name(value: MaskValue) -> str:
    return f"class_{value}" if isinstance(value, int) else f"color_{value[1:]}"


def format_items(items: Sequence[object]) -> str:
    """Return items as text, separated by commas; of more than `SHOWN`, the number of the others.

    Args:
        items: the items.
    """
    return list_some(items, SHOWN)


def _format_option(option: str, value: str) -> str:
    """Return an option of a command as a shell reads it: unquoted, # starts a comment."""
    return f"{option} {shlex.quote(value)}"
