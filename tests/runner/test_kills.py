"""A short run of `benchmarks/failures/kills.py`, which kills processes of a running grid."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="requires /proc")
def test_grid_with_killed_processes_gives_the_table_of_an_uninterrupted_run() -> None:
    harness = REPOSITORY / "benchmarks" / "failures" / "kills.py"
    command = [sys.executable, str(harness), "--kills", "5", "--seeds", "1", "--pause", "2"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "nothing lost, nothing repeated, the same table" in done.stdout
    assert done.stdout.startswith("5 kills: ")
