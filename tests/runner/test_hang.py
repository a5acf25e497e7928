"""Trials that make no progress, and the signs by which they are found. All times are of an injected clock."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from threading import Event

import pytest
import torch

from fcnlab.lab import Lab
from fcnlab.runner.executors.base import Job
from fcnlab.runner.executors.hang import FACTOR, LONGEST_PAUSE, START_TIMEOUT, HangDetector
from fcnlab.runner.executors.process import ProcessExecutor
from fcnlab.runner.executors.slots import Slot
from fcnlab.runner.executors.worker import run_job as run_job_here
from fcnlab.trial.heartbeat import Heartbeat
from fcnlab.trial.run_folder import RunFolder
from tests.builders import build_trial, create_lab
from tests.processes import needs_proc, wait_until_gone
from tests.runner.jobs import LONG, child_of_worker, losses_of, read_record, run_job, wait_for_exit, worker_of

STEP = LONGEST_PAUSE / 2
"""Seconds between two observations."""


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Watch:
    """A detector with one trial, whose heartbeat a test changes."""

    def __init__(self, folder: Path, timeout: float | None) -> None:
        self.clock, self.file = Clock(), folder / ".heartbeat"
        self.detector = HangDetector(self.clock)
        self.detector.watch("key", self.file, timeout)
        self._beats = 0

    def beat(self) -> None:
        self._beats += 1
        self.file.write_text("training epoch 3")
        os.utime(self.file, ns=(self._beats, self._beats))

    def after(self, seconds: float) -> str | None:
        """Return what is found within some seconds of undisturbed observation."""
        until = self.clock.now + seconds
        while self.clock.now < until:
            self.clock.now = min(until, self.clock.now + STEP)
            if found := self.detector.find_hung().get("key"):
                return found
        return None


def test_a_trial_hangs_after_its_timeout_without_progress(tmp_path: Path) -> None:
    watch = Watch(tmp_path, 600)
    for _ in range(3):
        watch.beat()
        assert watch.after(50) is None
    watch.beat()
    assert watch.after(600) is None
    assert watch.after(60) == "no progress for 630 s while training epoch 3; its processes were killed"
    assert watch.after(10_000) is None, "it is reported once"


def test_the_limit_grows_with_the_longest_step_of_the_trial(tmp_path: Path) -> None:
    watch = Watch(tmp_path, 600)
    watch.beat()
    assert watch.after(210) is None
    watch.beat()
    assert watch.after(FACTOR * 180) is None
    assert watch.after(FACTOR * 60) is not None


def test_the_start_has_a_limit_of_its_own_and_does_not_count_as_a_step(tmp_path: Path) -> None:
    watch = Watch(tmp_path, 60)
    assert watch.after(START_TIMEOUT - STEP) is None
    watch.beat()
    assert watch.after(60) is None
    assert watch.after(60) is not None
    assert (
        Watch(tmp_path / "missing", 60).after(START_TIMEOUT + 60) == "no progress for 330 s; its processes were killed"
    )


def test_times_start_again_after_a_suspension_of_the_observer(tmp_path: Path) -> None:
    watch = Watch(tmp_path, 600)
    watch.beat()
    assert watch.after(590) is None
    watch.clock.now += 8 * 3600
    assert watch.detector.find_hung() == {}
    assert watch.after(600) is None
    assert watch.after(60) is not None


def test_off_never_finds_a_hanging_trial(tmp_path: Path) -> None:
    assert Watch(tmp_path, None).after(10**6) is None


def test_a_heartbeat_changes_between_steps_and_names_the_phase(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fcnlab.trial.heartbeat.INTERVAL", 0.0)
    file = tmp_path / ".heartbeat"
    heartbeat = Heartbeat(file)
    assert not file.exists()
    heartbeat.enter("training epoch 1")
    os.utime(file, ns=(1, 1))
    heartbeat.beat()
    assert file.stat().st_mtime_ns > 1 and file.read_text() == "training epoch 1"
    file.unlink()
    heartbeat.beat()  # removed by somebody: training continues
    Heartbeat(None).enter("training epoch 1")
    assert not file.exists()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def executor(lab: Lab, clock: Clock) -> Iterator[ProcessExecutor]:
    with ProcessExecutor(lab, [Slot(threads=1)]) as created:
        created._hangs = HangDetector(clock)
        yield created


@needs_proc
def test_stopped_processes_are_killed_and_the_trial_resumes(
    executor: ProcessExecutor, lab: Lab, clock: Clock, tmp_path: Path
) -> None:
    """First the trial is stopped, then its worker, then the trial with its worker killed."""
    asked = build_trial(lab=lab, **LONG)
    folder = RunFolder(lab.runs, asked.key)
    for stopped in ("trial", "worker", "both"):
        done = len(folder.read_progress())
        executor.start(Job(trial=asked, checkpoint_every=0, hang_timeout=45))
        while len(folder.read_progress()) <= done or not folder.checkpoint.exists():
            assert not executor.wait(0.02)
        pid, worker = child_of_worker(executor), worker_of(executor)
        os.kill(worker if stopped == "worker" else pid, signal.SIGSTOP)
        if stopped == "both":
            os.kill(worker, signal.SIGKILL)
            ended = wait_for_exit(executor)
            assert ended.error == "its worker ended with signal 9"
        else:
            os.kill(pid, signal.SIGSTOP)
            assert not executor.wait(0.1)
            while not (exits := executor.wait(0.02)):
                clock.now += STEP
            (ended,) = exits
            assert ended.error is not None and ended.error.startswith("no progress for ")
        assert ended.key == asked.key
        wait_until_gone(pid)
        # It may have been killed while it replaced its checkpoint.
        assert folder.read() is None and (folder.checkpoint.exists() or folder.previous_checkpoint.exists())
    assert run_job(executor, asked).error is None
    assert not folder.heartbeat.exists()
    calm = create_lab(tmp_path / "calm")
    before = torch.get_num_threads()
    undisturbed = run_job_here(Job(trial=asked), calm, threads=1, pause=Event())
    torch.set_num_threads(before)
    assert undisturbed is not None and losses_of(read_record(lab, asked)) == losses_of(undisturbed)
