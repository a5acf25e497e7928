"""Atomic writing of files, with the permissions that the umask gives to new files, and reading of such files."""

from __future__ import annotations

import errno
import os
import re
import secrets
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from fcnlab.paths import exists, resolve_path
from fcnlab.storage_errors import find_storage_error

_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{12}")

READ_ATTEMPTS = 10
"""Number of times that a file is opened to read it, if another machine replaces it each time."""

READ_PAUSE = 0.02
"""Seconds between two of these attempts."""


@contextmanager
def replace_atomically(path: Path, *, keep_mode: bool = False) -> Iterator[Path]:
    """Replace a file when the context ends without an exception: readers see the old or the new content.

    The new content is on the disk before the file is replaced, and its name when the context ends, so that this also
    holds after a crash.

    Args:
        path: path of the file; its folder exists.
        keep_mode: keep the permissions of an existing file, and follow a symbolic link, as for a file of the user.

    Yields:
        Path of an empty file beside it, to be written or replaced.

    Raises:
        OSError: it cannot be written; also where a library raises another error for a full disk.
    """
    target = resolve_path(path) if keep_mode else path
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(6)}")
    try:
        temporary.touch(exist_ok=False)  # with the permissions of the umask, which cannot be read without changing it
        mode = stat.S_IMODE((target if keep_mode and exists(target) else temporary).stat().st_mode)
        yield temporary
        if stat.S_IMODE(temporary.stat().st_mode) != mode:  # some libraries create private files
            temporary.chmod(mode)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, target)
        sync_folder(target.parent)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        storage_error = find_storage_error(error)
        if storage_error is None and isinstance(error, OSError) and error.filename is None and error.errno is not None:
            storage_error = error  # writing to an open file: the file system may not allow to read or to seek meanwhile
        if storage_error is None or storage_error.filename not in (None, str(temporary)):
            raise
        # The reader of the message does not know the temporary name, and libraries raise errors of other types.
        raise OSError(storage_error.errno, storage_error.strerror, str(target)) from error


def write_atomically(path: Path, write: Callable[[IO[bytes]], Any], *, keep_mode: bool = False) -> None:
    """Write a file atomically: readers see the old or the new content, also after a crash.

    Args:
        path: path of the file; its folder exists.
        write: function that writes the content to an open binary file.
        keep_mode: keep the permissions of an existing file, and follow a symbolic link.
    """
    with replace_atomically(path, keep_mode=keep_mode) as temporary, temporary.open("wb") as file:
        write(file)


def read_shared(path: Path) -> bytes:
    """Return the content of a file that another process, also on another machine, may replace or remove meanwhile.

    On NFS a file that another machine replaces between opening and reading cannot be read any more (ESTALE); its name
    then has the new file.

    Args:
        path: path of the file.

    Raises:
        OSError: it cannot be read; FileNotFoundError if it does not exist.
    """
    for _ in range(READ_ATTEMPTS - 1):
        try:
            return path.read_bytes()
        except OSError as error:
            if error.errno != errno.ESTALE:
                raise
        time.sleep(READ_PAUSE)
    return path.read_bytes()


def is_temporary(path: Path) -> bool:
    """Return whether a file is one that is being written, or was when its process was killed.

    Args:
        path: path of the file.
    """
    return _TEMPORARY.fullmatch(path.name) is not None


def list_temporary_files(folder: Path) -> list[Path]:
    """Return the temporary files of a folder: those that are being written, and those of killed processes.

    Args:
        folder: the folder, which need not exist.
    """
    with suppress(FileNotFoundError, NotADirectoryError):
        return [path for path in folder.iterdir() if is_temporary(path)]
    return []


def sync_folder(folder: Path) -> None:
    """Write the names of a folder's files to the disk, where the file system can.

    Args:
        folder: the folder.
    """
    with suppress(OSError):
        opened = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)
