"""Processes of benchmarks: none outlives the benchmark, also if that is killed in the middle of a lap."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from threading import Thread
from types import FrameType
from typing import Any

PARENT_VARIABLE = "FCNLAB_BENCHMARK_PARENT"
"""Environment variable with the id of the process whose end also ends its child."""

INTERVAL = 0.25
"""Seconds between two checks of the parent."""

REPOSITORY = Path(__file__).resolve().parents[1]


def child_environment(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the environment of a child that can import `benchmarks` and calls `end_with_parent`.

    Args:
        environment: other variables.
    """
    paths = os.pathsep.join(filter(None, (str(REPOSITORY), environment.get("PYTHONPATH"))))
    return {**environment, "PYTHONPATH": paths, PARENT_VARIABLE: str(os.getpid())}


def end_with_parent() -> None:
    """Kill this process, and its process group if it leads one, as soon as its parent has ended.

    Nothing happens if the parent has not set PARENT_VARIABLE, as if a user has started this process.
    """
    parent = os.environ.pop(PARENT_VARIABLE, None)
    if parent is not None:
        Thread(target=_watch, args=(int(parent),), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(INTERVAL)
    if os.getpgid(0) == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


def exit_on_sigterm() -> None:
    """Exit with code 143 at SIGTERM by an exception, so that contexts end child processes and remove files."""
    signal.signal(signal.SIGTERM, _exit)


def _exit(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


def run_guarded(command: Sequence[str], environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a command in a process group that ends with this process, and return its output.

    Args:
        command: the command.
        environment: its environment.
    """
    words = [sys.executable, str(Path(__file__).resolve()), *command]
    process = subprocess.Popen(
        words,
        env=child_environment(environment),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        out, err = process.communicate()
    finally:
        kill_group(process)
    return subprocess.CompletedProcess(words, process.returncode, out, err)


def kill_group(process: subprocess.Popen[Any]) -> None:
    """Kill a process and its process group, and wait for its end.

    Args:
        process: the leader of the group.
    """
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


if __name__ == "__main__":
    end_with_parent()
    sys.exit(subprocess.run(sys.argv[1:], check=False).returncode)
