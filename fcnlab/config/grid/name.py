"""Names of grids: the path of the file below `experiments/`, without its suffix."""

from __future__ import annotations

from pathlib import Path

from fcnlab.errors import ConfigError
from fcnlab.paths import is_folder, resolve_path
from fcnlab.redaction import escape_line

FOLDER = "experiments"

MAX_BYTES = 200
"""Longest name of a file or folder; file systems allow 255 bytes, and fcnlab appends to names."""


def find_lab_folder(file: Path) -> Path | None:
    """Return the folder of the lab that a grid file is in: the folder above its `experiments/`.

    Args:
        file: the grid file.

    Returns:
        The folder. None if the file is not in `experiments/`, nor in a folder below an `experiments/` that is beside a
        `registry/`.
    """
    parents = resolve_path(file).parents
    for folder in parents:
        if folder.name == FOLDER and (folder == parents[0] or is_folder(folder.parent / "registry")):
            return folder.parent
    return None


def name_grid(file: Path) -> str:
    """Return the name of a grid, which its results and its MLflow experiment have.

    Args:
        file: the grid file.

    Returns:
        The path below `experiments/` without the suffix, such as `heads/quick`; the name of a file outside of a lab.
    """
    lab = find_lab_folder(file)
    return file.stem if lab is None else resolve_path(file).relative_to(lab / FOLDER).with_suffix("").as_posix()


def check_name(name: str, where: str) -> None:
    """Check that the name of a grid can be the path of its results, and be printed on one line.

    Args:
        name: name of the grid.
        where: start of the error, such as the path of the file.

    Raises:
        ConfigError: a part of the name begins with a dot, or is too long, or the name contains a control character.
    """
    parts = name.split("/")
    if escape_line(name) != name:
        problem = "contains a control character or a line break, or is not UTF-8"
    elif any(part.startswith(".") for part in parts):
        problem = "begins with a dot"
    elif any(len(part.encode()) > MAX_BYTES for part in parts):
        problem = f"has more than {MAX_BYTES} bytes"
    else:
        return
    raise ConfigError(
        f"{escape_line(where)}: the name of a grid is that of its file, and this one {problem}; rename the file"
    )


def path_in_lab(file: Path) -> str:
    """Return the path of a grid file for commands that are run in the folder of its lab.

    Args:
        file: the grid file.

    Returns:
        The path, such as `experiments/heads/quick.yaml`; the given one for a file outside of a lab, with `./` if it
        would be taken for an option.
    """
    lab = find_lab_folder(file)
    if lab is not None:
        return resolve_path(file).relative_to(lab).as_posix()
    return f"./{file}" if str(file).startswith("-") else str(file)
