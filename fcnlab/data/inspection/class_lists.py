"""Text files with classes in common forms: names, names with numbers, names with colors, tables with a heading."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

LONGEST_LINE = 200
"""Characters of the longest line with one class; matching takes cubic time in the worst case."""

IGNORED_NAME = "__ignore__"
"""First line of labelme's lists; its pixels are saved as 255."""

FORMS = "name, `0: name`, `name: 0`, `name,r,g,b`, `r g b name`, `name,#rrggbb`, or a table with a heading"
"""Forms of a line, for messages."""

NAME_HEADINGS = ("name", "class_name", "classname", "category", "class", "label")
NUMBER_HEADINGS = ("id", "index", "idx", "value", "number", "class_id", "label_id", "pixel_value", "label", "class")
RED_GREEN_BLUE = (("r", "g", "b"), ("red", "green", "blue"))
COLOR_HEADINGS = ("color", "hex")

_NUMBER, _HEX, _SEPARATOR = r"\d{1,5}", "#[0-9a-fA-F]{6}", r"\s*[:=,;\t]\s*"
_RGB = r"(?P<r>\d{1,3})[\s,;]+(?P<g>\d{1,3})[\s,;]+(?P<b>\d{1,3})"
_NAME = r"(?P<name>.*[^\d\s].*?)"
_LINES = tuple(
    re.compile(pattern)
    for pattern in (
        rf"(?P<number>{_NUMBER})(?:{_SEPARATOR}|\s+){_NAME}(?:{_SEPARATOR}|\s+){_RGB}",
        rf"{_NAME}:{_RGB}(?::.*)?",  # CVAT: label:r,g,b:parts:actions
        rf"{_NAME}(?:{_SEPARATOR}|\s+){_RGB}",
        rf"{_RGB}(?:{_SEPARATOR}|\s+){_NAME}",
        rf"{_NAME}(?:{_SEPARATOR}|\s+)(?P<hex>{_HEX})",
        rf"(?P<hex>{_HEX})(?:{_SEPARATOR}|\s+){_NAME}",
        rf"(?P<number>{_NUMBER})(?:{_SEPARATOR}|\s+){_NAME}",
        rf"{_NAME}{_SEPARATOR}(?P<number>{_NUMBER})",
    )
)


@dataclass(frozen=True)
class ListedClass:
    """A class of a list.

    Attributes:
        name: name of the class.
        number: its number in masks; None if the list has none.
        color: its color in masks, as '#rrggbb'; None if the list has none.
    """

    name: str
    number: int | None = None
    color: str | None = None


def parse_class_list(text: str) -> list[ListedClass]:
    """Parse the classes of a text file; all lines have one form.

    Empty lines and lines that begin with # are left out.

    Args:
        text: content of the file.

    Returns:
        The classes in the order of the lines; with `__ignore__` in the first line, as labelme writes it, the next class
        is the first.

    Raises:
        ValueError: a line has another form than the first one, or is none of the known forms.

    >>> parse_class_list("0: road")
    [ListedClass(name='road', number=0, color=None)]
    """
    lines = [(number, line.strip()) for number, line in enumerate(text.splitlines(), 1)]
    lines = [(number, line) for number, line in lines if line and not _is_comment(line)]
    if not lines:
        raise ValueError("no class is listed")
    for number, line in lines:
        if re.search(r"[{}\[\]]", line):
            raise ValueError(
                f"line {number}: {_shorten(line)!r} is not a class; valid: {FORMS}; or a YAML or JSON file"
            )
    table = _parse_table([line for _, line in lines])
    if table is not None:
        return table
    pattern = _find_pattern(lines[0][1])
    if pattern is None:
        return _parse_names(lines)
    classes = []
    for number, line in lines:
        match = _match(pattern, line)
        if match is None:
            raise _other_form_error(number, line, lines[0][1])
        classes.append(_to_class(match.groupdict(), f"line {number}: "))
    return classes


def list_classes(content: Any) -> list[ListedClass] | None:
    """Return the classes of a YAML or JSON file that lists them in the form of another program.

    Args:
        content: content of the file: names by number, such as {0: road}; a list of {id: 0, name: road}; or either of
            them, or a list of names, under `names`, `classes`, `categories` or `id2label`.

    Returns:
        The classes; None for other content.
    """
    if isinstance(content, Mapping):
        for key in ("names", "classes", "categories", "id2label"):
            if isinstance(content.get(key), list | Mapping):
                content = content[key]
                break
    if isinstance(content, Mapping) and content and all(str(key).isdecimal() for key in content):
        return [ListedClass(str(name), int(key)) for key, name in content.items()]
    if not isinstance(content, list) or not content:
        return None
    if all(isinstance(item, Mapping) and isinstance(item.get("name"), str) for item in content):
        numbers = (number if isinstance(number := item.get("id"), int) else None for item in content)
        return [ListedClass(item["name"], number) for item, number in zip(content, numbers, strict=True)]
    return [ListedClass(item) for item in content] if all(isinstance(item, str) for item in content) else None


def _shorten(line: str) -> str:
    return line if len(line) <= LONGEST_LINE else f"{line[:LONGEST_LINE]}..."


def _is_comment(line: str) -> bool:
    """Return whether a line is a comment, and not a class that begins with its color."""
    return line.startswith("#") and re.match(rf"{_HEX}\b", line) is None


def _other_form_error(number: int, line: str, first: str) -> ValueError:
    return ValueError(f"line {number}: {_shorten(line)!r} has another form than the first line, {_shorten(first)!r}")


def _match(pattern: re.Pattern[str], line: str) -> re.Match[str] | None:
    return pattern.fullmatch(line) if len(line) <= LONGEST_LINE else None


def _find_pattern(line: str) -> re.Pattern[str] | None:
    """Return the first pattern of a line; None for a name without a number and a color."""
    return next((pattern for pattern in _LINES if _match(pattern, line)), None)


def _parse_names(lines: Sequence[tuple[int, str]]) -> list[ListedClass]:
    """Return names, one per line, or separated by commas in a single line."""
    names = [part.strip() for part in lines[0][1].split(",")] if len(lines) == 1 else [line for _, line in lines]
    for number, line in lines[1:]:
        if _find_pattern(line) is not None and re.search(r"[:=,;\t]", line):
            raise _other_form_error(number, line, lines[0][1])
    longest = max(names, key=len)
    if len(longest) > LONGEST_LINE:
        raise ValueError(f"{longest[:20]!r}... has {len(longest):,} characters; a class has at most {LONGEST_LINE}")
    if IGNORED_NAME in names[1:]:
        raise ValueError(f"{IGNORED_NAME} is only valid in the first line, where it means 255; pass --ignore instead")
    return [ListedClass(name.strip("\"'")) for name in names if name]


def _parse_table(lines: Sequence[str]) -> list[ListedClass] | None:
    """Return the classes of a table with a heading; None if the first line is not a heading."""
    delimiter = next((mark for mark in "\t;," if mark in lines[0]), ",")
    heading = [title.strip().lower() for title in lines[0].split(delimiter)]
    if not {*heading} & {*NAME_HEADINGS} or (len(heading) == 1 and lines[0].lower() != "name"):
        return None
    if len(heading) > 1 and not {*heading} & {*NUMBER_HEADINGS, *COLOR_HEADINGS, "r", "red"}:
        return None
    rows = list(csv.DictReader([delimiter.join(heading), *lines[1:]], delimiter=delimiter))
    names = _find_column(rows, NAME_HEADINGS, numeric=False)
    if names is None:
        raise ValueError(f"the table has no column with names; valid headings: {', '.join(NAME_HEADINGS)}")
    numbers = _find_column(rows, NUMBER_HEADINGS, numeric=True)
    channels = next((columns for columns in RED_GREEN_BLUE if {*columns} <= {*heading}), None)
    hexes = next((title for title in COLOR_HEADINGS if title in heading), None)
    classes = []
    for number, row in enumerate(rows, 2):
        cells: dict[str, str | None] = {"name": row[names], "number": row[numbers] if numbers else None}
        cells |= dict(zip("rgb", (row[column] for column in channels), strict=True)) if channels else {}
        cells |= {"hex": row[hexes]} if hexes else {}
        classes.append(_to_class(cells, f"row {number}: "))
    return classes


def _find_column(rows: Sequence[Mapping[str, str]], headings: Sequence[str], *, numeric: bool) -> str | None:
    """Return the first heading whose cells are all numbers, or all other text."""
    return next(
        (
            title
            for title in headings
            if rows and all((cell := row.get(title)) and cell.strip().isdecimal() == numeric for row in rows)
        ),
        None,
    )


def _to_class(cells: Mapping[str, str | None], where: str) -> ListedClass:
    number, red, color = cells.get("number"), cells.get("r"), cells.get("hex")
    if red is not None:
        levels = [(cells[channel] or "").strip() for channel in "rgb"]
        if not all(level.isdecimal() and int(level) <= 255 for level in levels):
            raise ValueError(f"{where}{', '.join(levels)} is not a color; valid: three numbers from 0 to 255")
        color = "#" + "".join(f"{int(level):02x}" for level in levels)
    elif color is not None and re.fullmatch(_HEX, color.strip()) is None:
        raise ValueError(f"{where}{color!r} is not a color such as '#804080'")
    name = (cells["name"] or "").strip().strip("\"'")
    return ListedClass(name, int(number) if number is not None else None, color and color.strip().lower())
