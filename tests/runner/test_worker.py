"""Workers that keep their process for the next trial, as they do on a GPU; here on the CPU."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from fcnlab.errors import RunError
from fcnlab.lab import Lab
from fcnlab.runner.executors import process, worker_process
from fcnlab.runner.executors.base import Job, JobExit
from fcnlab.runner.executors.process import ProcessExecutor
from fcnlab.runner.executors.slots import Slot
from fcnlab.runner.interrupts import SAME_WITHIN
from fcnlab.trial.run_folder import RunFolder
from tests.builders import build_trial, create_lab
from tests.conftest import arrays_of
from tests.patience import wait_until
from tests.processes import find_children, needs_proc, wait_until_gone
from tests.runner.jobs import (
    LONG,
    child_of_worker,
    losses_of,
    read_record,
    run_job,
    wait_for_epochs,
    wait_for_exit,
    worker_of,
)

pytestmark = needs_proc


@pytest.fixture
def keeping(lab: Lab) -> Iterator[ProcessExecutor]:
    """One worker that keeps its child."""
    with ProcessExecutor(lab, [Slot(threads=1)], keep_child=True) as executor:
        yield executor


def test_trials_in_one_process_have_the_metrics_of_trials_in_new_processes(lab: Lab, tmp_path: Path) -> None:
    asked = [{"flip": 0.5}, {"flip": 0.5, "ema": 0.9}, {"flip": 0.5, "loss.dice": 0.5, "grad_accum_steps": 2}]
    folders: dict[bool, list[RunFolder]] = {}
    for keep in (True, False):
        place = create_lab(tmp_path / str(keep))
        trials = [build_trial(lab=place, seed=seed, **fields) for seed, fields in enumerate(asked)]
        with ProcessExecutor(place, [Slot(threads=1)], keep_child=keep) as executor:
            for one in trials:
                assert run_job(executor, one) == JobExit(one.key)
        folders[keep] = [RunFolder(place.runs, one.key) for one in trials]
    for kept, fresh in zip(folders[True], folders[False], strict=True):
        theirs, ours = fresh.read(), kept.read()
        assert theirs is not None and ours is not None and theirs.metrics == ours.metrics
        assert losses_of(theirs) == losses_of(ours)
        for name, counts in arrays_of(fresh.counts).items():
            np.testing.assert_array_equal(arrays_of(kept.counts)[name], counts)


def test_a_process_is_kept_until_a_trial_fails(keeping: ProcessExecutor, lab: Lab) -> None:
    first, second, failing, last = (
        build_trial(lab=lab, seed=0),
        build_trial(lab=lab, seed=1),
        build_trial(lab=lab, batch_size=99),
        build_trial(lab=lab, seed=2),
    )
    run_job(keeping, first)
    pid = child_of_worker(keeping)
    run_job(keeping, second)
    assert child_of_worker(keeping) == pid
    run_job(keeping, failing)
    assert read_record(lab, failing).status == "failed"
    assert find_children(worker_of(keeping)) == [], "what an error leaves behind goes with the process"
    run_job(keeping, last)
    assert child_of_worker(keeping) != pid
    assert read_record(lab, last).status == "finished"


def test_each_trial_has_its_own_log(keeping: ProcessExecutor, lab: Lab) -> None:
    failing = [build_trial(lab=lab, seed=seed, batch_norm="eval", lr=1e30) for seed in (0, 1)]
    quiet = build_trial(lab=lab)
    for one in (quiet, *failing):
        run_job(keeping, one)
        assert RunFolder(lab.runs, one.key).log.exists()


def test_a_trial_whose_worker_has_not_started_is_paused_at_once(lab: Lab) -> None:
    trials = [build_trial(lab=lab, seed=seed) for seed in (0, 1)]
    with ProcessExecutor(lab, [Slot(threads=1)] * 2) as executor:
        for trial in trials:
            executor.start(Job(trial=trial))
        executor.pause()
        assert executor.wait(0) == [JobExit(trial.key) for trial in trials]
        assert executor.free_slots == 0, "the workers, which would start the trials, were killed"
    assert not any(RunFolder(lab.runs, trial.key).log.exists() for trial in trials)


def test_a_job_of_a_worker_that_is_lost_before_it_has_started_goes_to_the_next(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_process, "_servers", {})  # a new server, which imports torch before it forks a worker
    trial = build_trial(lab=lab)
    with ProcessExecutor(lab, [Slot(threads=1)]) as executor:
        executor.start(Job(trial=trial))
        for server in worker_process._servers.values():
            server.kill()
        assert wait_for_exit(executor) == JobExit(trial.key)
    for server in worker_process._servers.values():
        server.close()
    assert read_record(lab, trial).status == "finished"


def test_workers_that_cannot_be_started_end_the_run_and_no_trial(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "WORKER", "fcnlab.no_such_module")
    monkeypatch.setattr(process, "start_worker", worker_process.StartedWorker)
    with ProcessExecutor(lab, [Slot(threads=1)] * 2) as executor:
        executor.start(Job(trial=build_trial(lab=lab)))
        with pytest.raises(RunError, match=r"workers cannot be started: 3 in sequence ended with exit code 1"):
            wait_for_exit(executor)


def test_a_worker_that_is_lost_with_its_server_is_described(keeping: ProcessExecutor, lab: Lab) -> None:
    trial = build_trial(lab=lab, **LONG)
    keeping.start(Job(trial=trial))
    wait_for_epochs(keeping, RunFolder(lab.runs, trial.key), 1)
    for server in list(worker_process._servers.values()):
        server.kill()
    keeping._workers[0].process.kill()
    assert wait_for_exit(keeping) == JobExit(
        trial.key, "its worker was lost, because the process from which workers are forked was killed"
    )


def test_a_pause_affects_only_the_trial_that_runs_in_a_kept_process(keeping: ProcessExecutor, lab: Lab) -> None:
    run_job(keeping, build_trial(lab=lab))
    pid = child_of_worker(keeping)
    long = build_trial(lab=lab, **LONG)
    keeping.start(Job(trial=long))
    folder = RunFolder(lab.runs, long.key)
    wait_for_epochs(keeping, folder, 1)
    keeping.pause()
    assert wait_for_exit(keeping) == JobExit(long.key)
    assert folder.read() is None and len(folder.read_progress()) < LONG["epochs"]
    assert run_job(keeping, long) == JobExit(long.key)
    assert child_of_worker(keeping) == pid, "a pause is no error"
    assert len(read_record(lab, long).epochs) == LONG["epochs"]


def test_sigterm_or_sigint_to_a_trial_or_its_worker_pauses_the_trial_after_its_epoch(
    keeping: ProcessExecutor, lab: Lab
) -> None:
    epochs = 6 * LONG["epochs"]  # it is paused twice before it ends
    long = build_trial(lab=lab, epochs=epochs, validate_every=epochs)
    folder = RunFolder(lab.runs, long.key)
    for number, to_the_worker in ((signal.SIGTERM, False), (signal.SIGINT, True)):
        before = len(folder.read_progress())
        worker = worker_of(keeping)
        keeping.start(Job(trial=long))
        wait_for_epochs(keeping, folder, before + 1)
        os.kill(worker if to_the_worker else child_of_worker(keeping), number)
        assert wait_for_exit(keeping) == JobExit(long.key), "it is not lost"
        assert folder.read() is None and before < len(folder.read_progress()) < epochs
        assert folder.checkpoint.exists()

    def replaced() -> bool:
        assert not keeping.wait(0.1)
        return worker_of(keeping) != worker

    wait_until(replaced, "the worker exits and is replaced", pause=0)
    assert run_job(keeping, long) == JobExit(long.key)
    assert len(read_record(lab, long).epochs) == epochs and "Traceback" not in folder.log.read_text()


def test_a_kept_process_that_is_killed_loses_the_trial_that_it_runs_and_no_other(
    keeping: ProcessExecutor, lab: Lab
) -> None:
    before, long = build_trial(lab=lab), build_trial(lab=lab, **LONG)
    run_job(keeping, before)
    finished = read_record(lab, before)
    keeping.start(Job(trial=long, checkpoint_every=0))
    wait_for_epochs(keeping, RunFolder(lab.runs, long.key), 2)
    os.kill(child_of_worker(keeping), signal.SIGKILL)
    lost = wait_for_exit(keeping)
    assert (lost.key, lost.error) == (long.key, "its process ended with signal 9")
    assert read_record(lab, before) == finished
    assert run_job(keeping, long) == JobExit(long.key)
    assert len(read_record(lab, long).epochs) == LONG["epochs"]


def test_a_kept_process_that_dies_idle_loses_nothing(keeping: ProcessExecutor, lab: Lab) -> None:
    run_job(keeping, build_trial(lab=lab))
    pid = child_of_worker(keeping)
    os.kill(pid, signal.SIGKILL)
    wait_until_gone(pid)
    other = build_trial(lab=lab, seed=1)
    assert run_job(keeping, other) == JobExit(other.key)
    assert read_record(lab, other).status == "finished"


@pytest.mark.parametrize("busy", [True, False])
def test_a_kept_process_ends_with_the_driver(lab: Lab, busy: bool) -> None:
    executor = ProcessExecutor(lab, [Slot(threads=1)], keep_child=True)
    run_job(executor, build_trial(lab=lab))
    pid = child_of_worker(executor)
    if busy:
        long = build_trial(lab=lab, **(LONG | {"epochs": 4000}))
        executor.start(Job(trial=long))
        wait_for_epochs(executor, RunFolder(lab.runs, long.key), 1)
    executor.close()
    wait_until_gone(pid)


def test_an_idle_worker_frees_the_gpu_before_an_exclusive_trial(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "FREED_WITHIN", 0.5)
    monkeypatch.setattr(Slot, "environment", {"OMP_NUM_THREADS": "1", "FCNLAB_DEVICE": "cpu"})  # a GPU in name only
    first, second, alone = (build_trial(lab=lab, seed=seed) for seed in range(3))
    with ProcessExecutor(lab, [Slot(threads=1, gpu="0")] * 2) as executor:
        executor.start(Job(trial=first))
        executor.start(Job(trial=second))
        for _ in range(2):
            wait_for_exit(executor)
        kept = [child_of_worker(executor, number) for number in range(2)]
        assert [read_record(lab, one).environment.trials_per_device for one in (first, second)] == [2, 2]
        assert not executor.waiting
        executor.start(Job(trial=alone, exclusive=True))
        assert executor.free_slots == 0
        assert executor.waiting == {alone.key}
        assert wait_for_exit(executor) == JobExit(alone.key)
        assert not executor.waiting
        for pid in kept:
            wait_until_gone(pid)
    environment = read_record(lab, alone).environment
    assert environment is not None and environment.trials_per_device == 1


@pytest.mark.parametrize(("seconds", "code"), [(SAME_WITHIN / 2, 0), (SAME_WITHIN, 128 + signal.SIGTERM)])
def test_only_a_later_second_sigterm_ends_a_trial_at_once(seconds: float, code: int) -> None:
    program = """
import signal, sys
from fcnlab.runner.executors.stop_signals import StopSignals

signals = StopSignals(iter([0.0, float(sys.argv[1])]).__next__)
with signals.during_trial():
    signal.raise_signal(signal.SIGTERM)
    signal.raise_signal(signal.SIGTERM)
"""
    assert subprocess.run([sys.executable, "-c", program, str(seconds)], check=False).returncode == code


def test_a_signal_is_not_lost_where_python_ignores_exceptions() -> None:
    program = """
import os, signal
from fcnlab.runner.executors.stop_signals import StopSignals

class Destroyed:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)
        signal.getsignal(signal.SIGTERM)  # the handler has run

signals = StopSignals()
Destroyed()
print("lost")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (128 + signal.SIGTERM, "", "")
