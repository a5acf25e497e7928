"""Moving damaged files out of a run folder: `runs/.quarantine/<key>-<time>/`. Nothing is deleted."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from fcnlab.errors import RunError
from fcnlab.paths import is_folder

QUARANTINE = ".quarantine"
"""Folder in `runs/` with the damaged files."""


def list_keys(runs: Path) -> list[str]:
    """Return the names of the run folders of a lab; the quarantine and temporary files are left out.

    Args:
        runs: folder `runs/` of the lab, which need not exist.

    Returns:
        The names, sorted.
    """
    names = (path.name for path in runs.iterdir()) if is_folder(runs) else ()
    return sorted(name for name in names if not name.startswith("."))


def move_to_quarantine(folder: Path, names: Iterable[str], runs: Path | None = None) -> Path:
    """Move files of a run folder, or of another folder of the lab, to the quarantine.

    Args:
        folder: the folder.
        names: names of the files or folders in it; missing ones are left out. `.` is the folder itself.
        runs: the folder of the run folders; None for the parent of `folder`.

    Returns:
        The folder with the moved files.

    Raises:
        RunError: they cannot be moved.
    """
    time = datetime.now(UTC).strftime("%Y%m%d-%H%M%S.%f")
    target = (runs or folder.parent) / QUARANTINE / f"{folder.name}-{time}"
    try:
        target.mkdir(parents=True)
        for name in names:
            source = folder / name
            if os.path.lexists(source):
                moved = target / (folder.name if name == "." else name)
                moved.parent.mkdir(exist_ok=True)
                _move(source, moved)
    except OSError as error:
        with suppress(OSError):  # it has files that have been moved, or could not be created
            target.rmdir()
        raise RunError(f"{folder}: damaged files cannot be moved to {target}: {error.strerror or error}") from None
    return target


def _move(source: Path, target: Path) -> None:
    """Move a file or folder, also to another file system: a run folder may be a link to a folder of another disk."""
    try:
        source.rename(target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        shutil.move(source, target)
