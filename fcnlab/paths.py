"""File system helpers that handle unusual paths: missing users, link loops, pipes, devices."""

from __future__ import annotations

import errno
import os
import stat
import unicodedata
from pathlib import Path


def expand_home(path: str | Path) -> Path:
    """Replace `~` and `~user` at the start of a path.

    Args:
        path: any path.

    Returns:
        The path; unchanged if there is no such user, unlike `Path.expanduser`.
    """
    return Path(os.path.expanduser(path))  # noqa: PTH111 - it does not raise


def resolve_path(path: str | Path) -> Path:
    """Return the absolute path without links.

    Args:
        path: any path; it need not exist.

    Returns:
        The path; a link that leads to itself stays, unlike `Path.resolve` before Python 3.13.
    """
    return Path(os.path.realpath(path))


def fold_name(name: str) -> str:
    """Return a text that is equal for names of one file on file systems that ignore case or the form of accents.

    Args:
        name: name of a file.
    """
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", name).casefold())


def correct_names(path: Path, top: str) -> Path:
    """Return a path with the names that its file and the folders above it have on the disk.

    A file system that ignores case opens `q.yaml` also as `Q.yaml`.

    Args:
        path: path of a file.
        top: name of the highest folder that is corrected.

    Returns:
        The path; unchanged if there is no such file, or if its folder cannot be listed.
    """
    try:
        listed = os.listdir(path.parent)  # noqa: PTH208 - only the names
    except OSError:
        return path
    name = path.name
    if name == "":  # the root or the current folder
        return path
    if name not in listed:
        similar = (other for other in listed if fold_name(other) == fold_name(name))
        name = next((other for other in similar if _is_same(path, path.with_name(other))), name)
    is_top = fold_name(name) == fold_name(top) or path.parent.name == ""
    return path.with_name(name) if is_top else correct_names(path.parent, top) / name


def _is_same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:  # one of them does not exist
        return False


def exists(path: Path) -> bool:
    """Return True if a file, a folder or a device is at a path.

    Args:
        path: any path; links are followed.

    Raises:
        OSError: the path cannot be examined, such as on a network file system that does not respond. From Python 3.14
            on, `Path.exists` returns False then, as if a result or a checkpoint were missing.
    """
    return _read_mode(path) != 0


def is_file(path: Path) -> bool:
    """Return True if a regular file is at a path.

    Args:
        path: any path; links are followed.

    Raises:
        OSError: as for `exists`.
    """
    return stat.S_ISREG(_read_mode(path))


def is_folder(path: Path) -> bool:
    """Return True if a folder is at a path.

    Args:
        path: any path; links are followed.

    Raises:
        OSError: as for `exists`.
    """
    return stat.S_ISDIR(_read_mode(path))


def _read_mode(path: Path) -> int:
    """Return the type and permissions of a file; 0 if there is none."""
    try:
        return path.stat().st_mode
    except ValueError:  # a null character
        return 0
    except OSError as error:
        if error.errno in _ABSENT:
            return 0
        raise


_ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.EBADF, errno.ELOOP)


def read_time(path: Path) -> float:
    """Return the time at which a file or folder was changed, in seconds since 1970.

    Args:
        path: the path.

    Returns:
        The time; 0 for a link that leads nowhere, and for what was just deleted.
    """
    try:
        return path.stat().st_mtime
    except OSError:  # others are raised where the content is read
        return 0.0


def check_regular_file(path: Path) -> None:
    """Check that a path can be read as a file: reading a pipe waits for a writer, and a device may never end.

    Args:
        path: path of a file, a folder or a link.

    Raises:
        OSError: it is missing, or is a pipe, a socket or a device. A folder is left to the function that opens it.
    """
    mode = path.stat().st_mode
    if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
        return
    kind = next((name for check, name in _KINDS if check(mode)), "no file")
    raise OSError(errno.EINVAL, f"is {kind}; expected a file", str(path))


_KINDS = (
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def relative_to_cwd(path: Path) -> Path:
    """Return a path relative to the current folder if it is below it, else the absolute path.

    Args:
        path: the path.
    """
    absolute = resolve_path(path)
    return absolute.relative_to(Path.cwd()) if absolute.is_relative_to(Path.cwd()) else absolute
