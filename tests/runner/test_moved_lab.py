"""A copied or moved lab: it writes no file outside of itself, and its earlier files are found."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from fcnlab.lab import Lab
from fcnlab.report.write import create_report
from fcnlab.runner.grid_state import noted_experiments
from fcnlab.runner.plan import make_plan
from fcnlab.runner.progress.base import ProgressReporter
from fcnlab.runner.publisher import OptionalTracker, open_tracker
from fcnlab.runner.run import sync_grid
from tests.conftest import SMOKE, write_grid
from tests.report.finished_grid import finish


def publish(lab: Lab, seeds: int) -> None:
    """Finish the trials of a grid with some seeds, publish them and write the report."""
    grid = lab.load_grid(write_grid(lab.root, SMOKE.replace("seeds: 2", f"seeds: {seeds}")))
    for planned in make_plan(grid, lab).remaining:
        finish(planned, 0.7)
    assert sync_grid(grid, lab, ProgressReporter()).deferred == {}
    tracker = OptionalTracker(grid, lab)
    create_report(grid, lab, tracker, predict=False)
    assert tracker.error is None


def snapshot(folder: Path) -> dict[Path, int]:
    return {file: file.stat().st_mtime_ns for file in folder.rglob("*") if file.is_file()}


@pytest.mark.parametrize("how", ["copied", "moved"])
def test_a_copied_or_moved_lab_uses_only_its_own_files(tmp_path: Path, how: str) -> None:
    first, second = tmp_path / "my lab", tmp_path / "colleague#2"
    first.mkdir()
    publish(Lab.find(root=first), seeds=1)
    if how == "copied":
        shutil.copytree(first, second)
    else:
        first.rename(second)
    before = snapshot(first)

    lab = Lab.find(root=second)
    assert list(noted_experiments(lab)) == ["question"], "the address of the comparison is known as before"
    publish(lab, seeds=2)
    assert snapshot(first) == before
    assert first.exists() == (how == "copied")

    tracker = open_tracker(lab.load_grid(second / "experiments" / "question.yaml"), lab)
    for run in tracker.list_trials():  # those of the first lab and the new ones
        file = tracker.download_artifact(run["run_id"], "record.json", second)
        assert file is not None and file.is_file()
        file.unlink()
    assert len(list((second / "mlartifacts").rglob("record.json"))) == 4


def test_a_shared_store_keeps_its_locations(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    uri = f"sqlite:///{tmp_path}/store.db"
    publish(Lab.find(root=tmp_path / "one", tracking_uri=uri), seeds=1)
    lab = Lab.find(root=tmp_path / "two", tracking_uri=uri)
    grid = lab.load_grid(tmp_path / "one" / "experiments" / "question.yaml")
    open_tracker(grid, lab)
    assert len(list((tmp_path / "one" / "mlartifacts").rglob("record.json"))) == 2
    assert not (tmp_path / "two" / "mlartifacts").exists()
