"""Grids that are written as a dict in Python; a run writes their grid file, so that all commands find them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fcnlab.atomic_file import write_atomically
from fcnlab.config.grid.grid import Grid, create_grid
from fcnlab.config.grid.name import FOLDER
from fcnlab.config.registry import Registry
from fcnlab.config.yaml_file import dump, parse
from fcnlab.errors import ConfigError
from fcnlab.paths import is_file

HEADER = "# Written by fcnlab.run_grid from a dict in Python, and written again when the dict changes.\n"
"""First line of a grid file that a run has written."""


def create_from_dict(content: Mapping[str, Any], name: str, lab_root: Path, registry: Registry) -> Grid:
    """Create a grid from the content of a grid file. Nothing is written before `write_grid_file`.

    Args:
        content: keys and values of a grid file.
        name: name of the grid; its file is `experiments/<name>.yaml`.
        lab_root: folder of the lab.
        registry: the components.

    Raises:
        ConfigError: the content or the name is not valid, or another grid file has the name.
    """
    if not re.fullmatch(r"\w[\w.-]*", name):
        raise ConfigError(f"the name of a grid is made of letters, digits, '-', '_' and '.', not {name!r}")
    where = f"grid {name}"
    try:
        text = dump(_to_plain(content))
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None
    path = lab_root / FOLDER / f"{name}.yaml"
    _check_not_by_hand(path)
    return create_grid(parse(text, where), path, registry, where=where, source=HEADER + text)


def _to_plain(value: Any) -> Any:
    """Return nested mappings and sequences as dicts and lists, copied since YAML writes the same one as an alias."""
    if isinstance(value, Mapping):
        return {key: _to_plain(item) for key, item in value.items()}
    return [_to_plain(item) for item in value] if isinstance(value, list | tuple | range) else value


def _check_not_by_hand(path: Path) -> None:
    """Check that a file is missing or was written by `write_grid_file`.

    Raises:
        ConfigError: it is a file of the user.
    """
    if is_file(path) and not path.read_bytes().startswith(HEADER.encode()):
        raise ConfigError(
            f"{path}: exists and was not written from a dict; load this file, or give the grid another name"
        )


def write_grid_file(grid: Grid) -> None:
    """Write the file of a grid that was created from a dict, unless it has this content already.

    Args:
        grid: the grid; nothing is written for one that was read from a file.

    Raises:
        ConfigError: a file of the user has the name.
        OSError: the file cannot be written.
    """
    text = grid.source.encode()
    if not text or (is_file(grid.path) and grid.path.read_bytes() == text):
        return
    _check_not_by_hand(grid.path)
    grid.path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(grid.path, lambda file: file.write(text))
