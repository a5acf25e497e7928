"""Processes that tests watch, by files in /proc, which only Linux has."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.patience import wait_until

needs_proc = pytest.mark.skipif(
    not Path("/proc/self/task").is_dir(), reason="finds processes in /proc, which only Linux has"
)


def find_children(pid: int) -> list[int]:
    """Return the ids of the processes that the first thread of a process has started.

    Args:
        pid: id of the process.

    Returns:
        The ids in ascending order.
    """
    return sorted(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))


def find_descendants(pid: int) -> list[int]:
    """Return the ids of the children of a process, of their children, and so on.

    Args:
        pid: id of the process.

    Returns:
        The ids, each after that of its parent.
    """
    found = [pid]
    for one in found:
        found += find_children(one)
    return found[1:]


def is_running(pid: int) -> bool:
    """Return whether a process or one of its threads runs: its first thread may be a zombie before the others end.

    Args:
        pid: id of the process.

    Returns:
        False for a process that has ended and waits for its parent.
    """
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        return state not in "ZX" or len(list(Path(f"/proc/{pid}/task").iterdir())) > 1
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_until_gone(pid: int) -> None:
    """Wait until a process has ended.

    Args:
        pid: id of the process.
    """
    wait_until(lambda: not is_running(pid), "the process ends")
