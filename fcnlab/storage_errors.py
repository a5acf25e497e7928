"""Errors of storage and of the system's limits: their detection, and their description in one line with a remedy.

They do not fail a trial, because it would succeed with free space. They end the run, and trials keep their state.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fcnlab.errors import FcnlabError, RunError, StopRunError
from fcnlab.paths import is_folder

ANYWHERE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.ESTALE, errno.EMFILE, errno.ENFILE}
"""Errors that end a run, whichever file they are about."""

OF_A_FILE = {
    errno.EACCES,
    errno.EPERM,
    errno.EIO,
    errno.ENAMETOOLONG,
    errno.ENXIO,
    errno.ENODEV,
    errno.ELOOP,
    errno.ENOLCK,
}
"""Errors of a named file that a user can remove."""

FEWEST_FILES, MANY_FILES = 128, 1024
"""Number of open files with which every command works, and the number to which a lower limit is raised."""

_OPEN_FILES = "raise the limit of open files (`ulimit -n 1024`)"

_LOCKS = (
    "mount the file system with locks on files (NFS: start rpc.statd, or mount with nolock; Lustre: mount with flock), "
    "or use a folder of another one,"
)

_REMEDIES = {
    errno.ENOSPC: "make room",
    errno.EDQUOT: "your quota is used up: remove files of yours or have it raised,",
    errno.EFBIG: "raise the limit of file sizes (`ulimit -f unlimited`)",
    errno.EMFILE: _OPEN_FILES,
    errno.ENFILE: _OPEN_FILES,
    errno.EIO: "check the disk; restore the file or move it away,",
    errno.ENOLCK: _LOCKS,
}

_RUST = re.compile(r"\(os error (\d+)\)")
"""Number of the error in a message of a library in Rust, such as safetensors."""


def find_storage_error(error: BaseException, folder: Path | None = None) -> OSError | None:
    """Find the error of storage that is the reason of an exception.

    Args:
        error: the exception; the exceptions that it followed from are searched, too.
        folder: folder in which any error of a file counts: missing permission, an error of the device, a missing file.

    Returns:
        The error, about the folder if it names no file; None if the reason is another one.
    """
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        os_error = _as_os_error(current)
        if os_error is not None and (os_error.errno in ANYWHERE or _is_below(os_error.filename, folder)):
            is_named = os_error.filename is not None or folder is None
            return os_error if is_named else OSError(os_error.errno, os_error.strerror, str(folder))
        current = current.__cause__ or current.__context__
    return None


def describe_storage_error(error: OSError) -> str:
    """Return the failed operation, the free space if it is exhausted, and the remedy, in one line.

    Args:
        error: the error.
    """
    where = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, str | bytes | os.PathLike) else ""
    return f"{where}{describe_reason(error)}{_describe_room(error)}; {find_remedy(error)}"


def describe_reason(error: OSError) -> str:
    """Return the reason of an error without its number and file; libraries raise errors that have neither.

    Args:
        error: the error.
    """
    return error.strerror or str(error) or type(error).__name__


@contextmanager
def convert_write_errors(path: Path | str) -> Iterator[None]:
    """Convert errors of writing to a `RunError`.

    Args:
        path: the file or folder that is written.

    Raises:
        RunError: it cannot be written.
    """
    try:
        yield
    except OSError as error:
        raise RunError(f"{path}: cannot be written: {describe_reason(error)}") from None


@contextmanager
def convert_storage_errors(folder: Path) -> Iterator[None]:
    """Convert errors of storage to a `StopRunError`.

    Args:
        folder: folder in which any error of a file counts; see `find_storage_error`.

    Raises:
        StopRunError: storage could not be written or read.
    """
    try:
        yield
    except FcnlabError:  # it has a message for the user
        raise
    except Exception as error:
        storage_error = find_storage_error(error, folder)
        if storage_error is None:
            raise
        raise StopRunError(describe_storage_error(storage_error)) from None


def ensure_open_files() -> None:
    """Raise the limit of open files of this process, and of those that it starts, if it is low.

    Libraries that reach it raise errors that do not name it.

    Raises:
        StopRunError: the system allows fewer than `FEWEST_FILES`.
    """
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft >= MANY_FILES or soft == resource.RLIM_INFINITY:
        return
    soft = MANY_FILES if hard == resource.RLIM_INFINITY else min(hard, MANY_FILES)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft < FEWEST_FILES:
        raise StopRunError(describe_storage_error(OSError(errno.EMFILE, os.strerror(errno.EMFILE))))


def _as_os_error(error: BaseException) -> OSError | None:
    if isinstance(error, OSError):
        return error
    number = _RUST.search(str(error)) if type(error).__name__ == "SafetensorError" else None
    if number is None:
        return None
    code = int(number[1])
    return OSError(code, os.strerror(code))


def _is_below(name: object, folder: Path | None) -> bool:
    return folder is not None and isinstance(name, str | os.PathLike) and Path(name).is_relative_to(folder)


def _describe_room(error: OSError) -> str:
    """Return the free space of the file system, or the limit, that the error is about."""
    if error.errno in (errno.EMFILE, errno.EFBIG):
        import resource

        limit = {errno.EMFILE: resource.RLIMIT_NOFILE, errno.EFBIG: resource.RLIMIT_FSIZE}[error.errno]
        unit = " bytes" if error.errno == errno.EFBIG else ""
        return f" (limit: {resource.getrlimit(limit)[0]}{unit})"
    if error.errno != errno.ENOSPC or not isinstance(error.filename, str | bytes | os.PathLike):
        return ""
    folder = next(filter(is_folder, Path(os.fsdecode(error.filename)).absolute().parents), Path("/"))
    if os.statvfs(folder).f_favail == 0 < os.statvfs(folder).f_files:
        return f" (no free inodes in {folder}: it has too many files)"
    return f" ({shutil.disk_usage(folder).free / 1e6:.1f} MB free in {folder})"


def find_remedy(error: OSError) -> str:
    """Return the remedy for a storage error.

    Args:
        error: the error.
    """
    action = _REMEDIES.get(error.errno or 0, "make it readable and writable for this user,")
    return f"{action} and repeat the command"
