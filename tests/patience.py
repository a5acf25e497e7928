"""Last-resort limits of tests that wait for other processes, scaled to the speed of this machine.

A test waits for an event. The limit only ends a test that would wait forever, so it is far longer than the event takes.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from functools import cache

import pytest

STARTS = 100
"""The limit in starts of a Python process that imports torch: 150 s where that takes 1.5 s."""

LEAST = 120.0
"""The shortest limit in seconds, since the load of a machine can grow after the measurement."""


@cache
def start_seconds(code: str) -> float:
    """Return the seconds that a Python process takes to run a line of code; they are measured once."""
    began = time.monotonic()
    subprocess.run([sys.executable, "-c", code], check=True)
    return time.monotonic() - began


def patience() -> float:
    """Return the seconds after which a test that waits fails."""
    return max(LEAST, STARTS * start_seconds("import torch"))


def wait_until(condition: Callable[[], object], what: str, pause: float = 0.02) -> None:
    """Wait for a condition.

    Args:
        condition: called until its result is true. A condition that itself waits needs no pause.
        what: the event, for the message of a failed test.
        pause: seconds between two calls.

    Raises:
        pytest.fail.Exception: if the condition is not met within `patience()` seconds.
    """
    began = time.monotonic()
    while not condition():
        waited = time.monotonic() - began
        if waited > LEAST and waited > patience():
            pytest.fail(f"{what}: not within {patience():.0f} s")
        time.sleep(pause)
