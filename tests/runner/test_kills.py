"""A short run of `benchmarks/failures/kills.py`, which kills processes of running grids."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.patience import patience


@pytest.mark.skipif(sys.platform != "linux", reason="finds processes in /proc, which only Linux has")
def test_grids_with_killed_processes_give_the_table_of_an_undisturbed_run(tmp_path: Path) -> None:
    file = tmp_path / "kills.json"
    command = [sys.executable, "-m", "benchmarks.failures.kills", "--kills", "13", "--torn", "2", "--pairs", "0"]
    command += ["--seeds", "1", "--small", "--json", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=10 * patience(), cwd=REPOSITORY)
    assert done.returncode == 0, done.stdout + done.stderr
    tried = {outcome["failure"]: outcome["tried"] for outcome in json.loads(file.read_text())["outcomes"]}
    assert tried["SIGKILL to the driver"] == tried["SIGINT to a trial"] == tried["SIGTERM to all processes"] == 1
    assert tried["results of a grid after signals"] >= 1 and tried["results of a grid after power cuts"] >= 1
