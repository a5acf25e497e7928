"""Files of killed processes, records of newer versions, and jobs that end without a result."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from fcnlab.config.grid.grid import Grid
from fcnlab.errors import RunError
from fcnlab.lab import Lab
from fcnlab.lab_check import check_lab
from fcnlab.runner.executors.base import Job, JobExit
from fcnlab.runner.grid_state import state_folder
from fcnlab.runner.plan import PlannedTrial, make_plan
from fcnlab.runner.progress.base import ProgressReporter
from fcnlab.runner.run import Outcome, run_grid
from fcnlab.trial.run_folder import RunFolder
from fcnlab.trial.storage.sealed_record import compute_checksum
from tests.builders import epoch_records
from tests.conftest import SMOKE
from tests.report.finished_grid import RIGHT, finish, finished_lab
from tests.runner.damages import FakeExecutor


class CountingExecutor(FakeExecutor):
    """Calls a function for each job and counts the starts of each trial."""

    def __init__(self, trials: dict[str, PlannedTrial], work: Callable[[PlannedTrial], object]) -> None:
        super().__init__(trials)
        self.starts: list[str] = []
        self._work = work

    def start(self, job: Job) -> None:
        self.starts.append(job.trial.key)
        self._work(self._trials[job.trial.key])
        self._ended.append(JobExit(job.trial.key))


@pytest.fixture
def lab_of_grid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Grid, Lab]:
    """A grid of four trials, of which three have finished; nothing is published."""
    monkeypatch.setattr("fcnlab.tracking.store.is_installed", lambda: False)
    monkeypatch.setattr("fcnlab.runner.publisher.is_installed", lambda: False)
    grid, lab = finished_lab(tmp_path, SMOKE)
    folder = make_plan(grid, lab).trials[-1].folder
    folder.record.unlink()
    folder.counts.unlink()
    return grid, lab


def run(grid: Grid, lab: Lab, work: Callable[[PlannedTrial], object]) -> tuple[Outcome, list[str]]:
    executor = CountingExecutor({planned.key: planned for planned in make_plan(grid, lab).trials}, work)
    outcome = run_grid(grid, lab, ProgressReporter(), executor=lambda: executor)
    return outcome, executor.starts


def finish_normally(planned: PlannedTrial) -> None:
    finish(planned, RIGHT[planned.trial.names["head"]])


def finish_with_newer_version(planned: PlannedTrial) -> None:
    finish_normally(planned)
    add_field(planned.folder, mood="red")


def add_field(folder: RunFolder, **fields: object) -> None:
    content = json.loads(folder.record.read_bytes()) | fields
    del content["checksum"]
    folder.record.write_text(json.dumps(content | {"checksum": compute_checksum(content)}))


def test_files_of_killed_processes_are_removed_when_the_grid_is_run(lab_of_grid: tuple[Grid, Lab]) -> None:
    grid, lab = lab_of_grid
    finished, *_, started = (planned.folder for planned in make_plan(grid, lab).trials)
    dead = "gone_1_12345678"
    left = [
        finished.path / ".record.json.0123456789ab",
        finished.checkpoint,
        finished.previous_checkpoint,
        finished.path / "lease.3",
        finished.path / f".lease.4.{'0' * 32}",
        started.path / ".counts.npz.0123456789ab",
        state_folder(grid, lab) / ".experiment.0123456789ab",
    ]
    state_folder(grid, lab).mkdir(parents=True)
    for file in left:
        file.write_text(dead)
    kept = finished.path / ".notes"
    kept.write_text("of the user")
    run(grid, lab, finish_normally)
    assert [file for file in left if file.exists()] == []
    assert kept.exists()


@pytest.mark.parametrize(
    ("fields", "difference"),
    [({"mood": "red"}, "unknown field 'mood'"), ({"format": 2}, "format 2, and this version reads 1")],
)
def test_grid_with_a_record_of_a_newer_version_is_refused(
    lab_of_grid: tuple[Grid, Lab], fields: dict[str, object], difference: str
) -> None:
    grid, lab = lab_of_grid
    folder = make_plan(grid, lab).trials[0].folder
    add_field(folder, **fields)
    before = folder.record.read_bytes()
    with pytest.raises(RunError, match="newer version of fcnlab") as raised:
        run(grid, lab, finish_normally)
    assert difference in str(raised.value) and "update fcnlab, or use another lab" in str(raised.value)
    (problem,) = check_lab(lab, repair=True).problems
    assert "newer version" in problem.problem and problem.repair == "not changed"
    assert folder.record.read_bytes() == before and not (lab.runs / ".quarantine").exists()


def test_record_of_a_newer_worker_ends_the_run_after_one_start(lab_of_grid: tuple[Grid, Lab]) -> None:
    grid, lab = lab_of_grid
    starts: list[str] = []

    def work(planned: PlannedTrial) -> None:
        starts.append(planned.key)
        finish_with_newer_version(planned)

    with pytest.raises(RunError, match="unknown field 'mood'"):
        run(grid, lab, work)
    assert len(starts) == 1


def test_progress_of_a_newer_version_is_refused_and_kept(lab_of_grid: tuple[Grid, Lab]) -> None:
    grid, lab = lab_of_grid
    folder = make_plan(grid, lab).trials[-1].folder
    line = epoch_records(1)[0].model_dump(mode="json") | {"mood": "red"}
    folder.progress.write_text(json.dumps(line) + "\n")
    with pytest.raises(RunError, match=r"progress\.jsonl: .*unknown field 'mood'"):
        run(grid, lab, finish_normally)
    assert json.loads(folder.progress.read_text()) == line


def test_a_trial_that_resumes_before_its_last_epoch_and_pauses_again_is_not_lost(
    lab_of_grid: tuple[Grid, Lab],
) -> None:
    grid, lab = lab_of_grid
    folder = make_plan(grid, lab).trials[-1].folder
    folder.write_progress(epoch_records(2))
    folder.checkpoint.touch()
    starts: list[str] = []

    def work(planned: PlannedTrial) -> None:
        starts.append(planned.key)
        if len(starts) == 1:
            planned.folder.write_progress(epoch_records(1, seconds=7))  # from a checkpoint of the start
        else:
            finish_normally(planned)

    assert run(grid, lab, work)[0].finished == 4
    assert len(starts) == 2 and folder.attempts() == []


def test_epochs_without_a_checkpoint_are_trained_again(lab_of_grid: tuple[Grid, Lab]) -> None:
    grid, lab = lab_of_grid
    folder = make_plan(grid, lab).trials[-1].folder
    folder.write_progress(epoch_records(2))
    before: list[int] = []

    def work(planned: PlannedTrial) -> None:
        before.append(len(planned.folder.read_progress()))
        finish_normally(planned)

    run(grid, lab, work)
    assert before == [0]


def test_jobs_that_end_without_a_record_and_without_an_epoch_fail(lab_of_grid: tuple[Grid, Lab]) -> None:
    grid, lab = lab_of_grid
    outcome, starts = run(grid, lab, lambda planned: None)
    assert (outcome.finished, outcome.failed) == (3, 1)
    assert len(starts) == 2
    record = make_plan(grid, lab).trials[-1].record
    assert record is not None and record.failure is not None
    assert record.failure.cause == "lost" and "without a record" in record.failure.message
