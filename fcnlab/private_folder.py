"""Folders and files that other users cannot write, for code that is loaded and files that are trusted."""

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
        raise PermissionError(
            f"{folder} belongs to another user or is writable by others; set FCNLAB_CACHE to a "
            "folder that only you can write, on a file system with permissions"
        )


def read_own_file(file: Path) -> bytes | None:
    """Read a file of a cache that other users may be able to write.

    Args:
        file: path of the file.

    Returns:
        The content; None if there is no such file, or it belongs to another user, or others can write to it.
    """
    try:
        with file.open("rb") as opened:
            status = os.fstat(opened.fileno())
            if status.st_uid != os.getuid() or status.st_mode & 0o022 or not stat.S_ISREG(status.st_mode):
                return None
            return opened.read()
    except OSError:  # it is missing, or cannot be read
        return None
