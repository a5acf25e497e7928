"""Names of grids: the path of the file below `experiments/`, without its suffix."""

from __future__ import annotations

from pathlib import Path

FOLDER = "experiments"


def find_lab_folder(file: Path) -> Path | None:
    """Return the folder of the lab that a grid file is in: the folder above its `experiments/`.

    Args:
        file: the grid file.

    Returns:
        The folder. None if the file is not in `experiments/`, nor in a folder below an `experiments/` that is beside a
        `registry/`.
    """
    parents = file.resolve().parents
    for folder in parents:
        if folder.name == FOLDER and (folder == parents[0] or (folder.parent / "registry").is_dir()):
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
    return file.stem if lab is None else file.resolve().relative_to(lab / FOLDER).with_suffix("").as_posix()


def path_in_lab(file: Path) -> str:
    """Return the path of a grid file for commands that are run in the folder of its lab.

    Args:
        file: the grid file.

    Returns:
        The path, such as `experiments/heads/quick.yaml`; the given one for a file outside of a lab.
    """
    lab = find_lab_folder(file)
    return str(file) if lab is None else file.resolve().relative_to(lab).as_posix()
