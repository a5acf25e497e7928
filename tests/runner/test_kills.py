"""A short form of `benchmarks/kills.py`: processes of a running grid are killed, and nothing comes of it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds processes in /proc, which only Linux has")
def test_a_grid_whose_processes_are_killed_says_what_an_undisturbed_one_says() -> None:
    harness = REPOSITORY / "benchmarks" / "kills.py"
    command = [sys.executable, str(harness), "--kills", "5", "--seeds", "1", "--pause", "2"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "nothing lost, nothing repeated, the same table" in done.stdout
    assert done.stdout.startswith("5 kills: ")
