"""Interruptions, failures and pruning in grids whose training is patched."""

from __future__ import annotations

import errno
import io
import math
import shutil
import signal
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from rich.console import Console

import fcnlab
from fcnlab.config.trial import Trial
from fcnlab.errors import ConfigError, RunError, StopRunError
from fcnlab.lab import Lab
from fcnlab.runner.executors.base import Job, JobExit
from fcnlab.runner.interrupts import Interrupts
from fcnlab.runner.lease import WAITING, Leases
from fcnlab.runner.plan import Plan, PlannedTrial, make_plan
from fcnlab.runner.progress.base import ProgressReporter, Waiting
from fcnlab.runner.progress.plain import PlainReporter
from fcnlab.runner.run import Outcome, hold_leases, run_grid
from fcnlab.settings import RunOptions
from fcnlab.trial import run_folder
from fcnlab.trial.record import EpochRecord, Failure, Record
from fcnlab.trial.storage.json_lines import read_json_lines
from fcnlab.trial.trainer import Trainer
from tests.builders import epoch_records
from tests.conftest import SMOKE, write_grid
from tests.remarks import RemarkRecorder
from tests.report.finished_grid import finished_lab
from tests.runner.damages import FakeExecutor

TIMES = ["train_seconds", "images_per_s", "peak_memory", "device_hours"]


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    """Restore the number of threads: the serial executor runs in this process."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


class EventRecorder(ProgressReporter):
    """Records events as text."""

    def __init__(self) -> None:
        super().__init__()
        self.events: list[str] = []

    def on_trial_start(self, planned: PlannedTrial) -> None:
        super().on_trial_start(planned)
        self.events.append(f"started {planned.cell.label} {planned.trial.seed}")

    def on_trial_retry(self, planned: PlannedTrial, attempt: Any, remedy: str) -> None:
        super().on_trial_retry(planned, attempt, remedy)
        self.events.append(f"again {planned.cell.label} {planned.trial.seed}: {attempt.cause}")

    def on_trial_prune(self, planned: PlannedTrial, epoch: int) -> None:
        super().on_trial_prune(planned, epoch)
        self.events.append(f"pruned {planned.cell.label} {planned.trial.seed} after {epoch}")


def serial(
    path: Path,
    reporter: ProgressReporter | None = None,
    interrupts: Interrupts | None = None,
    trackers: str | None = None,
    **options: Any,
) -> Outcome:
    grid, lab = fcnlab.load_grid(path), Lab.find(path, trackers=trackers)
    reporter = reporter or ProgressReporter()
    return run_grid(grid, lab, reporter, RunOptions(executor="serial", threads=1, **options), interrupts=interrupts)


def patch_training(monkeypatch: pytest.MonkeyPatch, change: Callable[[Trial, int], None]) -> None:
    """Call `change` with the trial and its number of micro-batches before training."""
    train = Trainer.train

    def changed(self: Any) -> None:
        change(self.trial, self.settings.micro_batches)
        train(self)

    monkeypatch.setattr(Trainer, "train", changed)


class OneDeviceExecutor(FakeExecutor):
    """Keeps the second job of two waiting until the first one has ended, and lets each job run for two calls."""

    def __init__(self, trials: dict[str, PlannedTrial]) -> None:
        super().__init__(trials)
        self._jobs: list[tuple[Job, int]] = []
        self.noted: dict[str, list[bool]] = {}  # whether each job was noted as waiting, at each call

    @property
    def free_slots(self) -> int:
        return 2 - len(self._jobs)

    @property
    def waiting(self) -> list[str]:
        return [job.trial.key for job, _ in self._jobs[1:]]

    def start(self, job: Job) -> None:
        self._jobs.append((job, 2))

    def wait(self, timeout: float) -> list[JobExit]:
        for job, _ in self._jobs:
            folder = self._trials[job.trial.key].folder.path
            self.noted.setdefault(job.trial.key, []).append((folder / WAITING).exists())
        (job, calls), *others = self._jobs
        self._jobs = [(job, calls - 1), *others] if calls else others
        if not calls:
            super().start(job)
        return super().wait(timeout)


def test_a_trial_that_waits_for_its_device_is_reported_as_started_when_it_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fcnlab.runner.publisher.is_installed", lambda: False)
    grid, lab = finished_lab(tmp_path, SMOKE)
    for planned in make_plan(grid, lab).trials[:2]:
        planned.folder.record.unlink()
        planned.folder.counts.unlink()
    executor = OneDeviceExecutor({planned.key: planned for planned in make_plan(grid, lab).trials})
    shown = io.StringIO()
    reporter = PlainReporter(Console(file=shown, width=200))
    assert run_grid(grid, lab, reporter, executor=lambda: executor).ok
    lines = shown.getvalue().splitlines()
    events = [line for line in lines if line.startswith(("start", "wait", "resume", "done"))]
    assert [event.partition(":")[0] for event in events] == [
        "start  fcn32s, seed 0", "wait   fcn8s, seed 0 waits for its device", "done   fcn32s, seed 0",
        "start  fcn8s, seed 0", "done   fcn8s, seed 0",
    ]  # fmt: skip
    first, second = executor.noted.values()
    assert not any(first) and sorted(second, reverse=True) == second and {*second} == {True, False}


def test_serial_and_process_executors_give_the_same_table(tmp_path: Path) -> None:
    tables = []
    for name in ("serial", "process"):
        folder = tmp_path / name
        folder.mkdir()
        path = write_grid(folder, SMOKE)
        fcnlab.run_grid(fcnlab.load_grid(path), executor=name, threads=1, quiet=True)
        tables.append(fcnlab.summary(fcnlab.load_grid(path)).drop(columns=TIMES, errors="ignore"))
    pd.testing.assert_frame_equal(*tables)


def test_out_of_memory_splits_the_batch_and_records_the_micro_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def change(trial: Trial, micro_batches: int) -> None:
        if trial.seed == 1 and micro_batches < 4:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB")

    patch_training(monkeypatch, change)
    path = write_grid(tmp_path, SMOKE)
    reporter = EventRecorder()
    assert serial(path, reporter) == Outcome(finished=4, failed=0, reused=0)
    assert reporter.events.count("again fcn8s 1: out_of_memory") == 2
    records = [one.record for one in make_plan(fcnlab.load_grid(path), Lab.find(path)).trials]
    assert [record.micro_batches for record in records if record is not None] == [1, 1, 4, 4]


def test_trial_fails_with_out_of_memory_at_the_smallest_micro_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def change(trial: Trial, _micro_batches: int) -> None:
        if trial.seed == 1:
            raise torch.OutOfMemoryError("CUDA out of memory")

    patch_training(monkeypatch, change)
    path = write_grid(tmp_path, SMOKE)
    assert serial(path) == Outcome(finished=2, failed=2, reused=0)
    record = make_plan(fcnlab.load_grid(path), Lab.find(path)).trials[-1].record
    assert record is not None and record.failure is not None
    assert record.failure.cause == "out_of_memory"
    assert "4 micro-batches" in record.failure.message
    monkeypatch.undo()
    with pytest.raises(ConfigError, match="tensorbord"):  # nothing is cleared for a run that is refused
        serial(path, trackers="tensorbord", retry_failed=True)
    assert serial(path) == Outcome(finished=2, failed=2, reused=4), "failed trials are not retried unasked"
    assert serial(path, retry_failed=True) == Outcome(finished=4, failed=0, reused=2)


@pytest.mark.parametrize(("fail_fast", "ended"), [(True, 2), (False, 4)])
def test_fail_fast_stops_the_grid_after_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fail_fast: bool, ended: int
) -> None:
    def change(trial: Trial, _micro_batches: int) -> None:
        if trial.names["head"] == "fcn8s":
            raise ValueError("broken")

    patch_training(monkeypatch, change)
    path = write_grid(tmp_path, SMOKE)
    outcome = serial(path, fail_fast=fail_fast)
    assert outcome.finished + outcome.failed == ended
    assert not outcome.ok


def test_a_run_that_does_not_wait_leaves_the_trials_of_other_drivers(tmp_path: Path) -> None:
    path, reporter = write_grid(tmp_path, SMOKE), RemarkRecorder()
    lab = Lab.find(path)
    other = make_plan(fcnlab.load_grid(path), lab).trials[1]
    with hold_leases(lab) as leases:
        other.folder.create()
        assert leases.claim(other.folder.path)
        assert serial(path, reporter, wait=False) == Outcome(finished=3, failed=0, reused=0)
    assert reporter.remarks[-1] == "1 trial left to other drivers, without waiting for them"
    assert make_plan(fcnlab.load_grid(path), lab).trials[1].status == "to do"
    assert serial(path, wait=False) == Outcome(finished=4, failed=0, reused=3)


def test_interrupted_and_resumed_grid_gives_the_table_of_an_uninterrupted_run(tmp_path: Path) -> None:
    class StopAfterStart(ProgressReporter):
        def on_trial_start(self, planned: PlannedTrial) -> None:
            super().on_trial_start(planned)
            signal.raise_signal(signal.SIGHUP)

    text = SMOKE.replace("recipe: smoke", "recipe: smoke, recipe.epochs: 4").replace("seeds: 2", "seeds: 1")
    tables = []
    for name in ("complete", "interrupted"):
        folder = tmp_path / name
        folder.mkdir()
        path = write_grid(folder, text)
        if name == "interrupted":
            with Interrupts() as interrupts:
                outcome = serial(path, StopAfterStart(), interrupts)
            assert outcome.interrupted and outcome.finished < 2
        assert serial(path).finished == 2
        tables.append(fcnlab.summary(fcnlab.load_grid(path)).drop(columns=TIMES, errors="ignore"))
    pd.testing.assert_frame_equal(*tables)


def test_pruned_cells_can_be_completed_by_another_grid(tmp_path: Path) -> None:
    text = SMOKE.replace("head: [fcn32s, fcn8s]", "recipe.optimizer.lr: [0.01, 0.003, 1.0e-12, 2.0e-12]")
    text = text.replace("{head: fcn32s}", "{recipe.optimizer.lr: 0.01}").replace(
        "upsampler:", "head: fcn32s, upsampler:"
    )
    text = text.replace("recipe: smoke", "recipe: smoke, recipe.epochs: 3")
    path = write_grid(tmp_path, text + "early_stopping: {after: 1, keep: 0.5}\n")
    reporter = EventRecorder()
    outcome = serial(path, reporter)
    pruned = {event for event in reporter.events if event.startswith("pruned")}
    assert outcome.pruned == len(pruned) >= 2
    assert outcome.finished == 8 - outcome.pruned
    assert serial(path, again := EventRecorder()) == Outcome(
        finished=outcome.finished, failed=0, reused=8, pruned=outcome.pruned
    )
    assert again.events == []
    frame = fcnlab.frame(fcnlab.load_grid(path))
    assert (frame["status"] == "finished").sum() == outcome.finished
    without = write_grid(tmp_path, text, "without")
    assert serial(without) == Outcome(finished=8, failed=0, reused=outcome.finished)
    kept = make_plan(fcnlab.load_grid(path), Lab.find(path))
    assert kept.counts()["pruned"] == outcome.pruned, "the status in a grid does not depend on other grids"


EARLY = SMOKE.replace("recipe: smoke", "recipe: smoke, recipe.epochs: 4") + "early_stopping: {after: 2, margin: 1}\n"


class Elsewhere(ProgressReporter):
    """Does the work of another driver when this one has made its plan."""

    def __init__(self, work: Callable[[], object]) -> None:
        super().__init__()
        self._work = work
        self.started: list[str] = []

    def on_plan(self, plan: Plan) -> None:
        super().on_plan(plan)
        self._work()

    def on_trial_start(self, planned: PlannedTrial) -> None:
        super().on_trial_start(planned)
        self.started.append(planned.key)


def test_a_trial_that_another_driver_has_trained_up_to_the_decision_is_not_trained_further(tmp_path: Path) -> None:
    path = write_grid(tmp_path, EARLY)
    grid, lab = fcnlab.load_grid(path), Lab.find(path)
    *others, last = make_plan(grid, lab).trials
    for planned in others:
        planned.folder.create()
        planned.folder.write_progress(epoch_records(2, miou=0.2))  # as FakeExecutor writes

    def train_elsewhere() -> None:
        last.folder.create()
        last.folder.write_progress(epoch_records(2, miou=0.01))

    reporter = Elsewhere(train_elsewhere)
    executor = FakeExecutor({planned.key: planned for planned in make_plan(grid, lab).trials})
    outcome = run_grid(grid, lab, reporter, executor=lambda: executor)
    assert (outcome.pruned, last.key in reporter.started) == (2, False)


def test_a_decision_counts_the_epochs_of_trials_that_other_drivers_run(tmp_path: Path) -> None:
    grid, lab = fcnlab.load_grid(write_grid(tmp_path, EARLY)), Lab.find(root=tmp_path)
    trials = make_plan(grid, lab).trials
    *others, last = trials
    for planned in others:
        planned.folder.create()
        planned.folder.write_progress(epoch_records(2, miou=0.5))
    with hold_leases(lab) as leases:
        last.folder.create()
        assert leases.claim(last.folder.path)

        def train_elsewhere() -> None:
            last.folder.write_progress(epoch_records(3, miou=0.5))

        class EndElsewhere(Elsewhere):
            def on_trial_end(self, planned: PlannedTrial, record: Any) -> None:
                super().on_trial_end(planned, record)
                if len(self.started) == 3:
                    leases.release(last.folder.path)

        executor = FakeExecutor({planned.key: planned for planned in trials})
        reporter = EndElsewhere(train_elsewhere)
        assert run_grid(grid, lab, reporter, executor=lambda: executor).finished == 4, "it does not wait for the lease"


def test_a_trial_waits_while_another_driver_retries_the_one_of_init_from(tmp_path: Path) -> None:
    text = SMOKE.replace("base: {", "base: {init_from: {head: fcn16s}, ").replace("seeds: 2", "seeds: 1")
    grid, lab = fcnlab.load_grid(write_grid(tmp_path, text)), Lab.find(root=tmp_path)
    plan = make_plan(grid, lab)
    (init,) = plan.prerequisites
    with hold_leases(lab) as leases:
        init.folder.create()
        assert leases.claim(init.folder.path)

        def run_out_of_memory() -> None:  # the record of an attempt that the other driver is about to retry
            failure = Failure(cause="out_of_memory", message="CUDA out of memory")
            init.folder.finish(Record.create(init.trial, "failed", failure=failure))

        class RetryElsewhere(Elsewhere):
            def on_wait(self, waiting: Waiting) -> bool:
                assert waiting.for_init == 2
                init.folder.restart()
                leases.release(init.folder.path)
                return super().on_wait(waiting)

        reporter = RetryElsewhere(run_out_of_memory)
        executor = FakeExecutor({planned.key: planned for planned in plan.all_trials})
        assert run_grid(grid, lab, reporter, executor=lambda: executor) == Outcome(finished=3, failed=0, reused=0)
    assert reporter.started[0] == init.key


def test_a_removed_run_folder_of_a_pending_trial_is_created_again(tmp_path: Path) -> None:
    grid, lab = fcnlab.load_grid(write_grid(tmp_path, SMOKE)), Lab.find(root=tmp_path)
    trials = make_plan(grid, lab).trials
    trials[-1].folder.create()  # it has been started before
    reporter = Elsewhere(lambda: shutil.rmtree(trials[-1].folder.path))
    executor = FakeExecutor({planned.key: planned for planned in trials})
    assert run_grid(grid, lab, reporter, executor=lambda: executor).finished == 4


def test_running_trials_pause_if_the_disk_of_the_driver_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid, lab = fcnlab.load_grid(write_grid(tmp_path, SMOKE)), Lab.find(root=tmp_path)
    executor = OneDeviceExecutor({planned.key: planned for planned in make_plan(grid, lab).trials})
    monkeypatch.setattr(executor, "pause", lambda: paused.append(True))
    paused: list[bool] = []
    claim = Leases.claim

    def claim_until_full(self: Leases, folder: Path) -> bool:
        if len(list(tmp_path.glob("runs/*/lease.*"))) == 2:
            raise OSError(errno.ENOSPC, "No space left on device", str(folder / "lease.1"))
        return claim(self, folder)

    monkeypatch.setattr(Leases, "claim", claim_until_full)
    monkeypatch.setattr(OneDeviceExecutor, "free_slots", 1)
    with pytest.raises(StopRunError, match="No space left on device"):
        run_grid(grid, lab, ProgressReporter(), executor=lambda: executor)
    assert paused == [True]
    assert len(list(tmp_path.glob("runs/*/record.json"))) == 2, "the running trials have ended"


class LosingExecutor(FakeExecutor):
    """Loses its job, a moment after the run was interrupted or before: all nodes of a cluster get a signal at once."""

    def __init__(self, trials: dict[str, PlannedTrial], *, interrupt: bool) -> None:
        super().__init__(trials)
        self._interrupt = interrupt

    def start(self, job: Job) -> None:
        self._trials[job.trial.key].folder.write_progress(epoch_records(1))
        self._ended.append(JobExit(job.trial.key, "its node is gone"))

    def wait(self, timeout: float) -> list[JobExit]:
        if self._interrupt:
            self._interrupt = False
            signal.raise_signal(signal.SIGTERM)
        return super().wait(timeout)


@pytest.mark.parametrize("interrupt", [True, False])
def test_a_worker_that_is_lost_while_the_run_stops_is_no_failed_attempt(tmp_path: Path, interrupt: bool) -> None:
    grid, lab = fcnlab.load_grid(write_grid(tmp_path, SMOKE)), Lab.find(root=tmp_path)
    trials = make_plan(grid, lab).trials
    executor = LosingExecutor({planned.key: planned for planned in trials}, interrupt=interrupt)
    with Interrupts() as interrupts:
        outcome = run_grid(grid, lab, ProgressReporter(), executor=lambda: executor, interrupts=interrupts)
    assert outcome.interrupted == interrupt
    attempts = [attempt.cause for planned in trials for attempt in planned.folder.attempts()]
    assert attempts == ([] if interrupt else ["lost"] * 8), "otherwise each trial is tried twice"


class SlowExecutor(FakeExecutor):
    """Runs one trial at a time, which trains its first epoch during some polls and its second during as many."""

    def __init__(self, trials: dict[str, PlannedTrial], polls: int) -> None:
        super().__init__(trials)
        self._polls = polls
        self._job: Job | None = None

    @property
    def free_slots(self) -> int:
        return 0 if self._job is not None else super().free_slots

    def start(self, job: Job) -> None:
        self._job, self._waited = job, 0

    def wait(self, timeout: float) -> list[JobExit]:
        if self._job is not None:
            self._waited += 1
            if self._waited in (self._polls, 2 * self._polls):
                folder = self._trials[self._job.trial.key].folder
                folder.write_progress(epoch_records(self._waited // self._polls))
            if self._waited > 3 * self._polls:
                job, self._job = self._job, None
                super().start(job)
        return super().wait(timeout)


class EpochRecorder(ProgressReporter):
    """Records the numbers of epochs that are reported."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[int] = []

    def on_progress(self, planned: PlannedTrial, epochs: list[EpochRecord]) -> bool:
        self.seen.append(len(epochs))
        return super().on_progress(planned, epochs)


def test_the_epochs_of_a_running_trial_are_read_once_after_each_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[Path] = []

    def count(path: Path, type_: Any) -> Any:
        reads.append(path)
        return read_json_lines(path, type_)

    monkeypatch.setattr(run_folder, "read_json_lines", count)
    monkeypatch.setattr("fcnlab.runner.publisher.is_installed", lambda: False)
    numbers = []
    for polls in (4, 40):
        (tmp_path / str(polls)).mkdir()
        path = write_grid(tmp_path / str(polls), SMOKE.replace("head: [fcn32s, fcn8s]", "head: [fcn32s]"))
        grid, lab = fcnlab.load_grid(path), Lab.find(path)
        executor = partial(SlowExecutor, {planned.key: planned for planned in make_plan(grid, lab).trials}, polls)
        reporter = EpochRecorder()
        reads.clear()
        assert run_grid(grid, lab, reporter, executor=executor).finished == 2
        numbers.append(sum(path.name == "progress.jsonl" for path in reads) - reporter.seen.count(0))
        assert {0: polls - 1, 1: polls, 2: polls + 1} == {each: reporter.seen.count(each) // 2 for each in range(3)}
    assert numbers[0] == numbers[1], "a file that does not exist is looked for each time"


def test_leases_of_a_dead_driver_are_taken_over(tmp_path: Path) -> None:
    path = write_grid(tmp_path, SMOKE.replace("seeds: 2", "seeds: 1"))
    for planned in make_plan(fcnlab.load_grid(path), Lab.find(path)).trials:
        planned.folder.create()
        (planned.folder.path / "lease.1").write_text("gone_1_12345678")
    assert serial(path) == Outcome(finished=2, failed=0, reused=0)


def test_incompatible_and_invalid_options_are_rejected() -> None:
    with pytest.raises(RunError, match="one trial at a time"):
        RunOptions(executor="serial", workers=2)
    with pytest.raises(RunError, match="--address"):
        RunOptions(address="auto")
    for option, value in (
        ("workers", 0), ("threads", 0), ("per_gpu", 0), ("devices_per_trial", 0), ("log_every", 0),
        ("checkpoint_every", -1), ("checkpoint_every", math.nan), ("hang_timeout", 0), ("hang_timeout", math.inf),
        ("device", "tpu"),
    ):  # fmt: skip
        with pytest.raises(RunError, match=f"^--{option.replace('_', '-')} .*: expected "):
            RunOptions(**{option: value})
