"""Locks on files, whose errors name the file: some file systems have no locks."""

from __future__ import annotations

import errno
import inspect
import os
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import filelock
from filelock import Timeout

__all__ = ["FileLock", "Timeout"]

_HAS_FALLBACK = "fallback_to_soft" in inspect.signature(filelock.BaseFileLock.__init__).parameters


def _refuse_fallback() -> dict[str, Any]:
    """Return the option by which filelock raises an error where the file system has no locks.

    Newer versions would create a file as the lock, for which other processes wait after its holder was killed.
    """
    return {"fallback_to_soft": False} if _HAS_FALLBACK else {}


NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
"""Errors of `flock` on file systems without locks."""


def _describe_missing_locks(file: str) -> OSError:
    return OSError(errno.ENOLCK, os.strerror(errno.ENOLCK), file)


class FileLock:
    """A lock that a process holds until it releases it or ends, also by a signal.

    A context manager.
    """

    def __init__(self, file: Path, timeout: float = -1) -> None:
        """Refer to a lock.

        Args:
            file: the file; it is created if it does not exist.
            timeout: seconds to wait for another process that holds the lock; negative for no limit.
        """
        self._lock = filelock.FileLock(file, timeout=timeout, **_refuse_fallback())

    def acquire(self, timeout: float | None = None) -> ExitStack:
        """Acquire the lock.

        Args:
            timeout: seconds to wait for another process; None for that of the lock.

        Returns:
            A context manager that releases the lock; without it, the lock is held until `release`.

        Raises:
            Timeout: another process holds it.
            OSError: the file cannot be written; ENOLCK if its file system has no locks.
        """
        try:
            self._lock.acquire(timeout=timeout)
        except Timeout:
            raise
        except NotImplementedError as error:  # of older versions of filelock
            raise _describe_missing_locks(self._lock.lock_file) from error
        except OSError as error:
            if error.errno in NO_LOCKS:
                raise _describe_missing_locks(self._lock.lock_file) from error
            raise OSError(error.errno, error.strerror, self._lock.lock_file) from error
        held = ExitStack()
        held.callback(self.release)
        return held

    def release(self) -> None:
        """Release the lock."""
        self._lock.release()

    def __enter__(self) -> FileLock:
        self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()
