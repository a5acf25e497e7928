"""Files that killed processes leave in a run folder."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from fcnlab.atomic_file import list_temporary_files
from fcnlab.paths import exists

if TYPE_CHECKING:
    from fcnlab.trial.run_folder import RunFolder


def list_leftovers(folder: RunFolder) -> list[Path]:
    """Return all temporary files of a run folder, and the files that only a running trial needs if it has ended.

    Args:
        folder: the run folder.
    """
    files = [folder.checkpoint, folder.previous_checkpoint, folder.rendezvous, folder.heartbeat]
    files = files if exists(folder.record) else []
    return [*list_temporary_files(folder.path), *(file for file in files if exists(file))]


def remove_leftovers(folder: RunFolder) -> None:
    """Remove the files of `list_leftovers`, unless a process runs the trial. The caller holds the lease.

    Args:
        folder: the run folder.
    """
    with suppress(Timeout), FileLock(folder.lock, timeout=0):
        for file in list_leftovers(folder):
            file.unlink(missing_ok=True)
