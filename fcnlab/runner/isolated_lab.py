"""A lab apart from another: what trials read there is found here, and nothing that was recorded there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from fcnlab.config.grid.cell import Cell
from fcnlab.errors import RunError
from fcnlab.lab import Lab


def isolated_lab(lab: Lab, cell: Cell, folder: Path) -> Lab:
    """A lab in `folder` in which a cell's trials run as in `lab`, with records and a book of their own.

    What lies in `lab` and is read by the trials (weights, lists of ids, a finished trial that they start from by its
    key) is linked to.

    Raises:
        RunError: the folder is the lab itself, or cannot be written.
    """
    root = folder.resolve()
    if root == lab.root:
        raise RunError(f"--workdir {folder}: this is the lab itself; name another folder")
    try:
        root.mkdir(parents=True, exist_ok=True)
        for name in _read_by(cell):
            there, here = lab.root / name, root / name
            if there.exists() and not here.exists():
                here.parent.mkdir(parents=True, exist_ok=True)
                here.symlink_to(there)
    except OSError as error:
        raise RunError(f"--workdir {folder}: cannot be written ({error.strerror})") from None
    return Lab(root, lab.data_root, f"sqlite:///{root / 'mlflow.db'}")


def _read_by(cell: Cell) -> Iterator[Path]:
    """What the trials of a cell may read in their lab, relative to it."""
    for name in (cell.variant.backbone.weights_file, *cell.dataset.list_files):
        if name is not None and not Path(name).expanduser().is_absolute():
            yield Path(name)
    if isinstance(cell.init_from, Cell):
        yield from _read_by(cell.init_from)
    elif cell.init_from is not None:
        yield Path("runs") / cell.init_from
