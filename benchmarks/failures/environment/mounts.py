"""File systems of their own for a case: small, read-only or absent. They require Linux and the rights of root."""

from __future__ import annotations

import ctypes
import functools
import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_NEW_MOUNTS = 0x00020000


@functools.cache
def why_not() -> str | None:
    """Return why file systems cannot be mounted; None if they can."""
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(["mount", "-t", "tmpfs", "tmpfs", folder], capture_output=True, text=True, check=False)
        if done.returncode == 0:
            subprocess.run(["umount", folder], check=True)
    return None if done.returncode == 0 else f"cannot mount: {done.stderr.strip()}"


@contextmanager
def mounted(folder: Path, size: int, *, files: int = 0) -> Iterator[Path]:
    """Mount a new file system in memory, and unmount it on exit.

    Args:
        folder: the mount point, which is created.
        size: bytes of the file system.
        files: maximum number of its files; 0 for no limit.
    """
    folder.mkdir(parents=True, exist_ok=True)
    limit = f",nr_inodes={files}" if files else ""
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}{limit}", "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def enlarge(folder: Path) -> None:
    """Make room in a file system of `mounted`.

    Args:
        folder: the mount point.
    """
    subprocess.run(["mount", "-o", "remount,size=256m,nr_inodes=100000", str(folder)], check=True)


def make_readonly(*folders: Path) -> None:
    """Make folders read-only for this process and its children, also for root.

    Args:
        *folders: the folders.
    """
    leave_mounts()
    for folder in folders:
        subprocess.run(["mount", "--bind", str(folder), str(folder)], check=True)
        subprocess.run(["mount", "-o", "remount,bind,ro", str(folder)], check=True)


def leave_mounts() -> None:
    """Give this process mounts of its own, so that its changes affect no other process."""
    if ctypes.CDLL(None, use_errno=True).unshare(_NEW_MOUNTS) != 0:
        raise OSError(ctypes.get_errno(), "unshare failed")
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)


def hide_shared_memory() -> None:
    """Replace /dev/shm by an empty folder that cannot be written, for this process and its children."""
    leave_mounts()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4k,ro", "tmpfs", "/dev/shm"], check=True)


def drop_rights(user: int = 65534) -> None:
    """Continue this process as a user without rights and without a home.

    Args:
        user: id of the user, by default one without a name.
    """
    import encodings.cp437  # noqa: F401 - zipfile imports it at its first use, and root's Python may not be readable

    os.setgroups([])
    os.setresgid(65534, 65534, 65534)
    os.setresuid(user, user, user)
