"""Ends of the processes of trials: their description, and the signs that memory of the machine ran out.

When memory runs out, Linux kills a process by SIGKILL and counts it in its control group, and libraries that cannot
allocate memory may end their process instead of raising an exception.
"""

from __future__ import annotations

import signal
from contextlib import suppress
from pathlib import Path

from fcnlab.limits import find_groups
from fcnlab.settings import KILLED

MEMORY_MESSAGES = (
    "std::bad_alloc",
    "MemoryError",
    "Cannot allocate memory",
    "memory allocation of ",
    "DefaultCPUAllocator: can't allocate memory",
    "libgomp: Thread creation failed",
    "can't start new thread",
)
"""Parts of the last messages of processes that ended because memory could not be allocated."""

LOG_BYTES = 4096
"""Bytes at the end of a log in which such messages are searched."""


def describe_exit(code: int) -> str:
    """Describe an exit code, such as `signal 9`.

    Args:
        code: exit code of a process; the negative number of the signal that ended it.
    """
    return f"signal {-code}" if code < 0 else f"exit code {code}"


def was_killed(code: int) -> bool:
    """Return whether a process, or one of several that train a trial, ended by SIGKILL.

    Args:
        code: exit code of the process.
    """
    return code in (-signal.SIGKILL, KILLED)


def count_oom_kills(root: Path = Path("/")) -> int:
    """Return how many processes the kernel has killed because memory ran out, in this control group or else in all.

    Args:
        root: root of the file system.

    Returns:
        The number since the group was created or the machine started; 0 if the system does not count them.
    """
    groups = find_groups("memory", root)
    counters = [group / name for group in groups for name in ("memory.events", "memory.oom_control")]
    for file in (*counters, root / "proc/vmstat"):
        with suppress(OSError, ValueError):  # of the other version of control groups
            for line in file.read_text(encoding="utf-8").splitlines():
                name, _, value = line.partition(" ")
                if name == "oom_kill":
                    return int(value)
    return 0


def find_memory_message(log: Path, start: int) -> str | None:
    """Return the last line of a log that reports that memory could not be allocated.

    Args:
        log: output of the process.
        start: length of the log in bytes when the process began its trial.

    Returns:
        The line; None if there is none.
    """
    try:
        with log.open("rb") as file:
            file.seek(max(start, log.stat().st_size - LOG_BYTES))
            lines = file.read().decode("utf-8", "replace").splitlines()
    except OSError:
        return None
    return next((line.strip() for line in reversed(lines) if any(part in line for part in MEMORY_MESSAGES)), None)
