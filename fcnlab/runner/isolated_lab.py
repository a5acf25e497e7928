"""A separate lab for one cell: it links to the inputs of another lab, but not to its records."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import get_args

from fcnlab.config.grid.cell import Cell
from fcnlab.errors import RunError
from fcnlab.lab import Lab
from fcnlab.paths import exists, expand_home, resolve_path
from fcnlab.settings import TrackerName


def isolated_lab(lab: Lab, cell: Cell, folder: Path) -> Lab:
    """Create a lab in which the trials of a cell run with separate records and a separate MLflow store.

    Args:
        lab: the original lab. The weights, lists of ids and trials that the cell reads are linked.
        cell: the cell to run.
        folder: the folder of the new lab; it is created.

    Returns:
        The new lab.

    Raises:
        RunError: the folder is the original lab, or cannot be written, or the cell reads a relative path outside of the
            lab.
    """
    root = resolve_path(folder)
    if root == lab.root:
        raise RunError(f"--workdir {folder}: this is the lab itself; name another folder")
    try:
        root.mkdir(parents=True, exist_ok=True)
        for name in _input_paths(lab, cell):
            target, link = lab.root / name, root / name
            if not exists(target):
                continue
            if ".." in name.parts:
                raise RunError(
                    f"{name}: is outside of the lab, and so would be its link; use an absolute path in the registry"
                )
            if not exists(link):
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(target)
    except OSError as error:
        raise RunError(f"--workdir {folder}: cannot be written ({error.strerror})") from None
    trackers = tuple(
        name for name in lab.trackers if name in get_args(TrackerName)
    )  # files of extensions are not linked
    return Lab(root, lab.data_root, Lab(root).own_tracking_uri, trackers)


def _input_paths(lab: Lab, cell: Cell) -> Iterator[Path]:
    """Yield the paths that the trials of a cell read, relative to their lab."""
    for name in (cell.variant.backbone.weights_file, *cell.dataset.list_files):
        if name is not None and not expand_home(name).is_absolute():
            yield Path(name)
    for extension in lab.extensions.used(cell.variant.head, cell.dataset, cell.recipe).values():
        yield from extension.files
    if isinstance(cell.init_from, Cell):
        yield from _input_paths(lab, cell.init_from)
    elif cell.init_from is not None:
        yield Path("runs") / cell.init_from
