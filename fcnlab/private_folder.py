"""Folders to which only the user of this process can write, for code that is loaded and files that are trusted."""

from __future__ import annotations

import os
import stat
from pathlib import Path


def ensure_private_folder(folder: Path) -> None:
    """Create a folder, or check that it belongs to this user and that no other user can write to it.

    Args:
        folder: path of the folder.

    Raises:
        OSError: the folder is a symbolic link, belongs to another user, or others can write to it.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.mkdir(mode=0o700, exist_ok=True)
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode):
        raise PermissionError(f"{folder} is a symbolic link; remove it")
    if status.st_uid != os.getuid() or status.st_mode & 0o022:
        raise PermissionError(f"{folder} belongs to another user or is writable by others")
