"""Files with one JSON object per line, whose last line may be incomplete after a crash."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from fcnlab.atomic_file import read_shared, write_atomically
from fcnlab.trial.storage.damage import DamageError, VersionError, convert_read_error, find_unknown

Line = TypeVar("Line", bound=BaseModel)


def read_json_lines(path: Path, type_: type[Line]) -> tuple[list[Line], DamageError | None]:
    """Read the lines of a file up to the first that is damaged.

    An incomplete last line, without a line break at its end, is left out: a crash leaves it.

    Args:
        path: path of the file, which need not exist.
        type_: type of a line.

    Returns:
        The lines before the damage, and the damage; None if there is none.
    """
    try:
        raw = read_shared(path)
    except (FileNotFoundError, NotADirectoryError):
        return [], None
    except OSError as error:
        return [], convert_read_error(path.name, error)
    lines: list[Line] = []
    for number, line in enumerate(raw.split(b"\n")[:-1], 1):
        try:
            lines.append(type_.model_validate_json(line))
        except ValidationError as error:
            if _has_more_fields(line, type_):
                return lines, VersionError(path.name, str(find_unknown(error)))
            return lines, DamageError(path.name, f"line {number} is damaged")
    return lines, None


def write_json_lines(path: Path, lines: Iterable[BaseModel]) -> None:
    """Replace a file by other lines.

    Args:
        path: path of the file.
        lines: the lines.
    """
    text = "".join(line.model_dump_json() + "\n" for line in lines)
    write_atomically(path, lambda file: file.write(text.encode()))


def _has_more_fields(line: bytes, type_: type[BaseModel]) -> bool:
    """Return whether a line has all fields of a type and others: a damaged name of a field is missing from them."""
    try:
        content = json.loads(line)
    except ValueError:
        return False
    return isinstance(content, dict) and type_.model_fields.keys() < content.keys()
