"""State and processes that a test must not leave to the next one."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch

from fcnlab.runner.executors.worker_process import SERVER
from tests.patience import wait_until

OWNER = "FCNLAB_TEST_PROCESS"
"""Environment variable of all processes that this process starts; its value is the id of this process."""

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM, signal.SIGCHLD, signal.SIGUSR1)

CHECKED = ("$FCNLAB_", "$CUDA_", "$MLFLOW_TRACKING_", "$OMP_")
"""Beginnings of environment variables that a test may not add."""

OURS = re.compile(r"-m fcnlab\b|fcnlab\.|import fcnlab|benchmarks[./]")
"""Command lines of fcnlab's processes. Libraries have helpers that end with this process, as torch's compiler does."""


def set_initial_state() -> None:
    """Set the state with which each test begins, since a trial in this process sets it as it needs it."""
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(False)


def read_state() -> dict[str, Any]:
    """Return the settings of this process that no test changes for the next one, by name."""
    state: dict[str, Any] = {
        "the current folder": Path.cwd(),
        "the default dtype": torch.get_default_dtype(),
        "gradients": torch.is_grad_enabled(),
        "a timer": signal.getitimer(signal.ITIMER_REAL)[0] > 0,
    }
    state |= {f"the handler of {number.name}": signal.getsignal(number) for number in SIGNALS}
    return state | {f"${name}": value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"}


def find_changes(before: dict[str, Any]) -> list[str]:
    """Return one line per setting that differs from an earlier state.

    New environment variables with which a library is configured at its import are no difference.

    Args:
        before: a result of `read_state`.
    """
    now = read_state()
    names = [*before, *(name for name in now if name not in before and name.startswith(CHECKED))]
    changed = [name for name in names if before.get(name) != now.get(name) and not _is_of_library(now.get(name))]
    return [f"{name} was {before.get(name)!r} and is {now.get(name)!r}" for name in changed]


def _is_of_library(handler: object) -> bool:
    """Return whether a handler of a signal was set by a library, as Ray and Jupyter do; it is restored silently."""
    is_handler = callable(handler) or isinstance(handler, signal.Handlers)
    return is_handler and not str(getattr(handler, "__module__", "")).startswith("fcnlab")


def restore_state(before: dict[str, Any]) -> None:
    """Restore the settings of an earlier state.

    Args:
        before: a result of `read_state`.
    """
    os.chdir(before["the current folder"])
    torch.set_default_dtype(before["the default dtype"])
    torch.set_grad_enabled(before["gradients"])
    signal.setitimer(signal.ITIMER_REAL, 0)
    for number in SIGNALS:
        signal.signal(number, before[f"the handler of {number.name}"])
    for name in list(os.environ):
        if f"${name}".startswith(CHECKED) and f"${name}" not in before:
            del os.environ[name]
    os.environ.update({name[1:]: value for name, value in before.items() if name.startswith("$")})


def end_processes() -> list[str]:
    """Kill the processes that this process has started and that do not end by themselves.

    Returns:
        The command lines of the killed processes.
    """
    left: dict[int, str] = {}

    def ended() -> bool:
        left.clear()
        left.update(_find_processes())
        return not left

    try:
        wait_until(ended, "the processes of the tests end")
    except pytest.fail.Exception:
        for process in left:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
    return list(left.values())


def _find_processes() -> Iterator[tuple[int, str]]:
    """Yield the ids and command lines of the running processes that this process or its children have started."""
    own = {int(child) for file in Path("/proc/self/task").glob("*/children") for child in file.read_text().split()}
    marker = f"{OWNER}={os.getpid()}".encode()
    forked = _read_command(Path("/proc/self"))
    for folder in Path("/proc").glob("[0-9]*"):
        process = int(folder.name)
        try:
            inherited = marker in (folder / "environ").read_bytes().split(b"\0")
            if process == os.getpid() or not (inherited or process in own):
                continue
            command = _read_command(folder)
            dead = (folder / "stat").read_text().rpartition(")")[2].split()[0] in "ZX"
        except OSError:  # it has ended, or is another user's
            continue
        keeps = process in own and SERVER in command  # it forks the workers of all tests and ends with this process
        if not dead and not keeps and (command == forked or OURS.search(command)):
            yield process, command


def _read_command(folder: Path) -> str:
    return (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
