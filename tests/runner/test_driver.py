"""What the driver does about pauses, failures and hopeless cells; here, where trials can be tampered with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

import fcnlab
from fcnlab.config.trial import Trial
from fcnlab.errors import RunError
from fcnlab.lab import Lab
from fcnlab.runner import scheduler
from fcnlab.runner.executors.config import ExecutorConfig
from fcnlab.runner.plan import PlannedTrial, make_plan
from fcnlab.runner.progress.base import ProgressReporter
from fcnlab.trial.trainer import Trainer
from tests.conftest import SMOKE, write_grid

TIMES = ["train_seconds", "images_per_s", "peak_memory", "device_hours"]


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    """The serial executor runs in this process; leave its threads as they were."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


class Noting(ProgressReporter):
    """Notes in words what it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.heard: list[str] = []

    def started(self, planned: PlannedTrial) -> None:
        super().started(planned)
        self.heard.append(f"started {planned.cell.label} {planned.trial.seed}")

    def retrying(self, planned: PlannedTrial, attempt: Any) -> None:
        super().retrying(planned, attempt)
        self.heard.append(f"again {planned.cell.label} {planned.trial.seed}: {attempt.cause}")

    def stopped(self, planned: PlannedTrial, epoch: int) -> None:
        super().stopped(planned, epoch)
        self.heard.append(f"stopped {planned.cell.label} {planned.trial.seed} after {epoch}")


def serial(path: Path, reporter: ProgressReporter | None = None, **how: Any) -> scheduler.Outcome:
    grid, lab = fcnlab.load_grid(path), Lab.find(path)
    executor_config = ExecutorConfig("serial", threads=1)
    reporter = reporter or ProgressReporter()
    return scheduler.run(grid, lab, lambda: executor_config.create_executor(lab, grid.recipes), reporter, **how)


def tampered(monkeypatch: pytest.MonkeyPatch, change: Callable[[Trial, int], None]) -> None:
    """Call `change` with the trial and the number of its parts before it trains."""
    train = Trainer.train

    def changed(self: Any) -> None:
        change(self.trial, self.options.micro_batches)
        train(self)

    monkeypatch.setattr(Trainer, "train", changed)


def test_serial_and_process_give_the_same_table(tmp_path: Path) -> None:
    tables = []
    for name in ("serial", "process"):
        folder = tmp_path / name
        folder.mkdir()
        path = write_grid(folder, SMOKE)
        fcnlab.run_grid(fcnlab.load_grid(path), executor=name, threads=1, quiet=True)
        tables.append(fcnlab.summary(fcnlab.load_grid(path)).drop(columns=TIMES, errors="ignore"))
    pd.testing.assert_frame_equal(*tables)


def test_memory_that_runs_out_is_answered_by_parts_and_the_record_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def change(trial: Trial, parts: int) -> None:
        if trial.seed == 1 and parts < 4:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB")

    tampered(monkeypatch, change)
    path = write_grid(tmp_path, SMOKE)
    reporter = Noting()
    assert serial(path, reporter) == scheduler.Outcome(finished=4, failed=0, reused=0)
    assert reporter.heard.count("again fcn8s 1: out_of_memory") == 2
    records = [one.record for one in make_plan(fcnlab.load_grid(path), Lab.find(path)).trials]
    assert [record.micro_batches for record in records if record is not None] == [1, 1, 4, 4]


def test_where_no_part_is_small_enough_the_trial_fails_by_its_cause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def change(trial: Trial, _parts: int) -> None:
        if trial.seed == 1:
            raise torch.OutOfMemoryError("CUDA out of memory")

    tampered(monkeypatch, change)
    path = write_grid(tmp_path, SMOKE)
    assert serial(path) == scheduler.Outcome(finished=2, failed=2, reused=0)
    record = make_plan(fcnlab.load_grid(path), Lab.find(path)).trials[-1].record
    assert record is not None and record.failure is not None
    assert record.failure.cause == "out_of_memory"
    assert "4 parts" in record.failure.message
    monkeypatch.undo()
    assert scheduler.clear_failed(fcnlab.load_grid(path), Lab.find(path)) == 2
    assert serial(path) == scheduler.Outcome(finished=4, failed=0, reused=2)


@pytest.mark.parametrize(("fail_fast", "ended"), [(True, 2), (False, 4)])
def test_after_a_failure_the_grid_goes_on_or_not_as_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fail_fast: bool, ended: int
) -> None:
    def change(trial: Trial, _parts: int) -> None:
        if trial.names["head"] == "fcn8s":
            raise ValueError("it is broken")

    tampered(monkeypatch, change)
    path = write_grid(tmp_path, SMOKE)
    outcome = serial(path, fail_fast=fail_fast)
    assert outcome.finished + outcome.failed == ended
    assert not outcome.ok


def test_an_interruption_pauses_after_the_epoch_and_figures_are_those_of_an_undisturbed_run(tmp_path: Path) -> None:
    class Impatient(ProgressReporter):
        stop = False

        def started(self, planned: PlannedTrial) -> None:
            super().started(planned)
            self.stop = True

    text = SMOKE.replace("recipe: smoke", "recipe: smoke, recipe.epochs: 4").replace("seeds: 2", "seeds: 1")
    tables = []
    for name in ("calm", "interrupted"):
        folder = tmp_path / name
        folder.mkdir()
        path = write_grid(folder, text)
        if name == "interrupted":
            reporter = Impatient()
            outcome = serial(path, reporter, interrupted=lambda reporter=reporter: reporter.stop)  # type: ignore[misc]
            assert outcome.interrupted and outcome.finished < 2
        assert serial(path).finished == 2
        tables.append(fcnlab.summary(fcnlab.load_grid(path)).drop(columns=TIMES, errors="ignore"))
    pd.testing.assert_frame_equal(*tables)


def test_hopeless_cells_are_stopped_and_another_grid_can_run_them_to_their_end(tmp_path: Path) -> None:
    text = SMOKE.replace("head: [fcn32s, fcn8s]", "recipe.optimizer.lr: [0.01, 0.003, 1.0e-12, 2.0e-12]")
    text = text.replace("{head: fcn32s}", "{recipe.optimizer.lr: 0.01}").replace(
        "upsampler:", "head: fcn32s, upsampler:"
    )
    text = text.replace("recipe: smoke", "recipe: smoke, recipe.epochs: 3")
    path = write_grid(tmp_path, text + "early_stopping: {after: 1, keep: 0.5}\n")
    reporter = Noting()
    outcome = serial(path, reporter)
    stopped = {heard for heard in reporter.heard if heard.startswith("stopped")}
    assert outcome.stopped == len(stopped) >= 2
    assert outcome.finished == 8 - outcome.stopped
    assert serial(path, again := Noting()) == scheduler.Outcome(
        finished=outcome.finished, failed=0, reused=8, stopped=outcome.stopped
    )
    assert again.heard == []
    frame = fcnlab.frame(fcnlab.load_grid(path))
    assert (frame["status"] == "finished").sum() == outcome.finished
    without = write_grid(tmp_path, text, "without")
    assert serial(without) == scheduler.Outcome(finished=8, failed=0, reused=outcome.finished)
    kept = make_plan(fcnlab.load_grid(path), Lab.find(path))
    assert kept.count("stopped") == outcome.stopped, "the grid's own answer does not depend on other grids"


def test_a_killed_driver_leaves_nothing_that_holds_up_the_next(tmp_path: Path) -> None:
    path = write_grid(tmp_path, SMOKE.replace("seeds: 2", "seeds: 1"))
    for planned in make_plan(fcnlab.load_grid(path), Lab.find(path)).trials:
        planned.folder.create()
        (planned.folder.path / "lease.1").write_text("gone:1:12345678")
    assert serial(path) == scheduler.Outcome(finished=2, failed=0, reused=0)


def test_means_that_do_not_go_together_are_refused() -> None:
    with pytest.raises(RunError, match="one trial at a time"):
        ExecutorConfig("serial", workers=2)
    with pytest.raises(RunError, match="--address"):
        ExecutorConfig("process", address="auto")
