"""Locks on files, whose errors name the file: some file systems have no locks."""

from __future__ import annotations

import errno
import inspect
import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import filelock
from filelock import Timeout

__all__ = ["FileLock", "Timeout"]

NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
"""Errors of `flock` on file systems without locks."""

_FALLBACK = "fallback_to_soft"
_OPTIONS: Mapping[str, Any] = MappingProxyType(
    {_FALLBACK: False} if _FALLBACK in inspect.signature(filelock.BaseFileLock).parameters else {}
)
"""Options by which filelock raises an error where a file system has no locks.

Newer versions would create a file as the lock, for which other processes wait after its holder was killed.
"""


class FileLock:
    """A lock that a process holds until it releases it or ends, also by a signal; a context manager."""

    def __init__(self, file: Path, timeout: float = -1) -> None:
        """Refer to a lock.

        Args:
            file: the file; it is created if it does not exist.
            timeout: seconds to wait for another process that holds the lock; negative for no limit.
        """
        self._lock = filelock.FileLock(file, timeout=timeout, **_OPTIONS)

    def acquire(self, timeout: float | None = None) -> None:
        """Acquire the lock.

        Args:
            timeout: seconds to wait for another process; None for that of the lock.

        Raises:
            Timeout: another process holds it.
            OSError: the file cannot be written; ENOLCK if its file system has no locks.
        """
        try:
            self._lock.acquire(timeout=timeout)
        except Timeout:
            raise
        except (OSError, NotImplementedError) as error:  # the latter of older versions of filelock, for ENOSYS
            if isinstance(error, OSError) and error.errno not in NO_LOCKS:
                error.filename = self._lock.lock_file
                raise
            raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK), self._lock.lock_file) from error

    def release(self) -> None:
        """Release the lock."""
        self._lock.release()

    def __enter__(self) -> FileLock:
        self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()
