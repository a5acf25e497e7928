"""Workers that keep their process for the next trial, as they do on a GPU; here on the CPU."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fcnlab.config.grid.grid import resolve
from fcnlab.config.trial import Trial
from fcnlab.lab import Lab
from fcnlab.runner.executors import process
from fcnlab.runner.executors.base import Job, JobExit
from fcnlab.runner.executors.process import ProcessExecutor
from fcnlab.runner.executors.slots import Slot
from fcnlab.trial.record import Record
from fcnlab.trial.run_folder import RunFolder
from tests.conftest import arrays_of
from tests.patience import wait_until

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/task").is_dir(), reason="finds processes in /proc, which only Linux has"
)

LONG: dict[str, Any] = {"epochs": 16, "validate_every": 8}
"""Fields of a recipe that takes a second or two."""


def trial(lab: Lab, seed: int = 0, **fields: Any) -> Trial:
    output = {"backbone": "tiny-scratch", "head": "fcn8s", "upsampler": "bilinear", "dataset": "shapes-mini"}
    output |= {"recipe": "smoke"} | {f"recipe.{name}": value for name, value in fields.items()}
    return resolve(output, lab.registry, "test").trial(seed, lab.fingerprints)


@pytest.fixture
def keeping(lab: Lab) -> Iterator[ProcessExecutor]:
    """One worker that keeps its child."""
    with ProcessExecutor(lab, [Slot(threads=1)], keep_child=True) as executor:
        yield executor


def run(executor: ProcessExecutor, trial: Trial, **how: Any) -> JobExit:
    executor.start(Job(trial=trial, **how))
    return end(executor)


def end(executor: ProcessExecutor) -> JobExit:
    ended: list[JobExit] = []
    wait_until(lambda: ended.extend(executor.wait(0.1)) or ended, "the trial ends", pause=0)
    return ended[0]


def child(executor: ProcessExecutor, number: int = 0) -> int:
    """The id of the process that a worker has for its trials."""
    pid = executor._workers[number].process.pid
    (only,) = map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
    return only


def children(executor: ProcessExecutor) -> str:
    pid = executor._workers[0].process.pid
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().strip()


def record(lab: Lab, trial: Trial) -> Record:
    found = RunFolder(lab.runs, trial.key).read()
    assert found is not None
    return found


def losses(record: Record) -> list[float]:
    return [epoch.loss for epoch in record.epochs]


def test_trials_in_one_process_have_the_metrics_of_trials_in_new_processes(lab: Lab, tmp_path: Path) -> None:
    asked = [{"flip": 0.5}, {"flip": 0.5, "ema": 0.9}, {"flip": 0.5, "loss.dice": 0.5, "grad_accum_steps": 2}]
    folders: dict[bool, list[RunFolder]] = {}
    for keep in (True, False):
        (tmp_path / str(keep)).mkdir()
        place = Lab.find(root=tmp_path / str(keep))
        trials = [trial(place, seed, **fields) for seed, fields in enumerate(asked)]
        with ProcessExecutor(place, [Slot(threads=1)], keep_child=keep) as executor:
            for one in trials:
                assert run(executor, one) == JobExit(one.key)
        folders[keep] = [RunFolder(place.runs, one.key) for one in trials]
    for kept, fresh in zip(folders[True], folders[False], strict=True):
        theirs, ours = fresh.read(), kept.read()
        assert theirs is not None and ours is not None and theirs.metrics == ours.metrics
        assert losses(theirs) == losses(ours)
        for name, counts in arrays_of(fresh.counts).items():
            np.testing.assert_array_equal(arrays_of(kept.counts)[name], counts)


def test_a_process_is_kept_until_a_trial_fails(keeping: ProcessExecutor, lab: Lab) -> None:
    first, second, failing, last = (trial(lab, 0), trial(lab, 1), trial(lab, batch_size=99), trial(lab, 2))
    run(keeping, first)
    pid = child(keeping)
    run(keeping, second)
    assert child(keeping) == pid
    run(keeping, failing)
    assert record(lab, failing).status == "failed"
    assert children(keeping) == "", "what an error leaves behind goes with the process"
    run(keeping, last)
    assert child(keeping) != pid
    assert record(lab, last).status == "finished"


def test_each_trial_has_its_own_log(keeping: ProcessExecutor, lab: Lab) -> None:
    failing = [trial(lab, seed, batch_norm="eval", lr=1e30) for seed in (0, 1)]
    quiet = trial(lab)
    for one in (quiet, *failing):
        run(keeping, one)
        assert RunFolder(lab.runs, one.key).log.exists()


def test_a_pause_affects_only_the_trial_that_runs_in_a_kept_process(keeping: ProcessExecutor, lab: Lab) -> None:
    run(keeping, trial(lab))
    pid = child(keeping)
    long = trial(lab, **LONG)
    keeping.start(Job(trial=long))
    folder = RunFolder(lab.runs, long.key)
    _until_epochs(keeping, folder, 1)
    keeping.pause()
    assert end(keeping) == JobExit(long.key)
    assert folder.read() is None and len(folder.read_progress()) < LONG["epochs"]
    assert run(keeping, long) == JobExit(long.key)
    assert child(keeping) == pid, "a pause is no error"
    assert len(record(lab, long).epochs) == LONG["epochs"]


def test_sigterm_or_sigint_to_a_trial_or_its_worker_pauses_the_trial_after_its_epoch(
    keeping: ProcessExecutor, lab: Lab
) -> None:
    epochs = 6 * LONG["epochs"]  # it is paused twice before it ends
    long = trial(lab, epochs=epochs, validate_every=epochs)
    folder = RunFolder(lab.runs, long.key)
    for number, to_the_worker in ((signal.SIGTERM, False), (signal.SIGINT, True)):
        before = len(folder.read_progress())
        worker = keeping._workers[0].process.pid
        keeping.start(Job(trial=long))
        _until_epochs(keeping, folder, before + 1)
        os.kill(worker if to_the_worker else child(keeping), number)
        assert end(keeping) == JobExit(long.key), "it is not lost"
        assert folder.read() is None and before < len(folder.read_progress()) < epochs
        assert folder.checkpoint.exists()

    def replaced() -> bool:
        assert not keeping.wait(0.1)
        return keeping._workers[0].process.pid != worker

    wait_until(replaced, "the worker exits and is replaced", pause=0)
    assert run(keeping, long) == JobExit(long.key)
    assert len(record(lab, long).epochs) == epochs and "Traceback" not in folder.log.read_text()


def test_a_kept_process_that_is_killed_loses_the_trial_that_it_runs_and_no_other(
    keeping: ProcessExecutor, lab: Lab
) -> None:
    before, long = trial(lab), trial(lab, **LONG)
    run(keeping, before)
    finished = record(lab, before)
    keeping.start(Job(trial=long, checkpoint_every=0))
    _until_epochs(keeping, RunFolder(lab.runs, long.key), 2)
    os.kill(child(keeping), signal.SIGKILL)
    lost = end(keeping)
    assert (lost.key, lost.error) == (long.key, "its process ended with signal 9")
    assert record(lab, before) == finished
    assert run(keeping, long) == JobExit(long.key)
    assert len(record(lab, long).epochs) == LONG["epochs"]


def test_a_kept_process_that_dies_idle_loses_nothing(keeping: ProcessExecutor, lab: Lab) -> None:
    run(keeping, trial(lab))
    pid = child(keeping)
    os.kill(pid, signal.SIGKILL)
    until_gone(pid)
    other = trial(lab, 1)
    assert run(keeping, other) == JobExit(other.key)
    assert record(lab, other).status == "finished"


@pytest.mark.parametrize("busy", [True, False])
def test_a_kept_process_ends_with_the_driver(lab: Lab, busy: bool) -> None:
    executor = ProcessExecutor(lab, [Slot(threads=1)], keep_child=True)
    run(executor, trial(lab))
    pid = child(executor)
    if busy:
        long = trial(lab, **(LONG | {"epochs": 4000}))
        executor.start(Job(trial=long))
        _until_epochs(executor, RunFolder(lab.runs, long.key), 1)
    executor.close()
    until_gone(pid)


def test_an_idle_worker_frees_the_gpu_before_an_exclusive_trial(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "FREED_WITHIN", 0.5)
    monkeypatch.setattr(Slot, "environment", {"OMP_NUM_THREADS": "1", "FCNLAB_DEVICE": "cpu"})  # a GPU in name only
    first, second, alone = (trial(lab, seed) for seed in range(3))
    with ProcessExecutor(lab, [Slot(threads=1, gpu="0")] * 2) as executor:
        executor.start(Job(trial=first))
        executor.start(Job(trial=second))
        for _ in range(2):
            end(executor)
        kept = [child(executor, number) for number in range(2)]
        assert [record(lab, one).environment.sharing for one in (first, second)] == [2, 2]
        executor.start(Job(trial=alone, exclusive=True))
        assert executor.free_slots == 0
        assert end(executor) == JobExit(alone.key)
        for pid in kept:
            until_gone(pid)
    environment = record(lab, alone).environment
    assert environment is not None and environment.sharing == 1


def _until_epochs(executor: ProcessExecutor, folder: RunFolder, epochs: int) -> None:
    """Wait until the running trial has finished some epochs."""

    def trained() -> bool:
        assert not executor.wait(0.05), "the trial has ended"
        return len(folder.read_progress()) >= epochs

    wait_until(trained, f"{epochs} epochs", pause=0)


def until_gone(pid: int) -> None:
    wait_until(lambda: not _lives(pid), "the process ends")


def _lives(pid: int) -> bool:
    """Return whether a process or one of its threads lives: its first thread may be a zombie before the others end."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        return state != "Z" or len(list(Path(f"/proc/{pid}/task").iterdir())) > 1
    except (FileNotFoundError, ProcessLookupError):
        return False


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
