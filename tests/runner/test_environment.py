"""A short form of `benchmarks/failures/environment`, and inputs that change after a trial was planned."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from benchmarks.failures.environment import data, mounts
from benchmarks.failures.environment.commands import FILE
from fcnlab.errors import StopRunError, TrackingError
from fcnlab.lab import Lab
from fcnlab.runner.plan import PlannedTrial, make_plan
from fcnlab.runner.publisher import open_tracker
from fcnlab.tracking import store
from fcnlab.trial.run import run_trial
from fcnlab.trial.settings import TrialSettings
from tests.conftest import REPOSITORY, SMOKE, write_grid

if sys.platform != "linux":
    pytest.skip("commands are forked", allow_module_level=True)


CASES = """
import json, sys
from pathlib import Path
from benchmarks.failures.environment import storage
from benchmarks.failures.environment.__main__ import open_workbench
bench = open_workbench(Path(sys.argv[1]))
print(json.dumps({"quota": storage.exceed_quota(bench, writes=9)}))
if len(sys.argv) > 2:
    print(json.dumps({"disk": storage.fill_lab(bench, share=0.6)}))
"""
"""The workbench forks its commands, so that it needs a process without threads of its own."""


def test_a_grid_resumes_after_the_quota_was_used_up_and_the_disk_was_full(tmp_path: Path) -> None:
    chosen = [] if mounts.why_not() is not None else ["disk"]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-c", CASES, str(tmp_path), *chosen]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    problems = [json.loads(line) for line in done.stdout.splitlines()]
    assert problems == [{"quota": []}, *({name: []} for name in chosen)]


def _plan(folder: Path) -> tuple[Lab, PlannedTrial]:
    data.make_data_lab(folder)
    lab = Lab.find(root=folder)
    return lab, make_plan(lab.load_grid(folder / FILE), lab).trials[0]


@pytest.mark.parametrize("change", data.CHANGES, ids=lambda change: change.__name__)
def test_a_dataset_that_changes_after_planning_ends_the_run_without_a_record(
    tmp_path: Path, change: data.Change
) -> None:
    lab, planned = _plan(tmp_path / "lab")
    change(lab.root)
    with pytest.raises(StopRunError, match="dataset blobs has changed since this trial was planned; run the grid"):
        run_trial(planned.trial, lab)
    assert not planned.folder.record.exists()


@pytest.mark.parametrize("cached", [True, False])
def test_a_dataset_that_changes_in_a_trial_is_in_no_record_and_no_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, cached: bool
) -> None:
    monkeypatch.setenv("FCNLAB_CACHE_BUDGET", "" if cached else "0")
    lab, planned = _plan(tmp_path / "lab")

    def change() -> bool:
        data.change_mask(lab.root)
        return False

    with pytest.raises(StopRunError, match="dataset blobs has changed"):
        run_trial(planned.trial, lab, TrialSettings(checkpoint_every=0), should_pause=change)
    assert not planned.folder.record.exists()
    assert planned.folder.checkpoint.exists() == cached, "cached images do not change"


def test_a_locked_store_defers_publishing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "LOCK_TIMEOUT", 0.1)
    lab = Lab.find(root=tmp_path)
    grid = lab.load_grid(write_grid(tmp_path, SMOKE))
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(TrackingError, match="database is locked"):
            open_tracker(grid, lab)
