"""Jobs of the `process` executor that tests run, and the processes and records of their trials."""

from __future__ import annotations

from typing import Any

from fcnlab.config.trial import Trial
from fcnlab.lab import Lab
from fcnlab.runner.executors.base import Job, JobExit
from fcnlab.runner.executors.process import ProcessExecutor
from fcnlab.trial.record import Record
from fcnlab.trial.run_folder import RunFolder
from tests.patience import wait_until
from tests.processes import find_children

LONG: dict[str, Any] = {"epochs": 16, "validate_every": 8}
"""Fields of a recipe that takes a second or two."""


def run_job(executor: ProcessExecutor, trial: Trial, **settings: Any) -> JobExit:
    """Run a job to its end.

    Args:
        executor: executor with one slot.
        trial: trial of the job.
        settings: other fields of the job.

    Returns:
        The exit of the job.
    """
    executor.start(Job(trial=trial, **settings))
    return wait_for_exit(executor)


def wait_for_exit(executor: ProcessExecutor) -> JobExit:
    """Wait until a job ends.

    Args:
        executor: executor that runs the job.

    Returns:
        The exit of the job.
    """
    ended: list[JobExit] = []
    wait_until(lambda: ended.extend(executor.wait(0.1)) or ended, "the trial ends", pause=0)
    return ended[0]


def wait_for_epochs(executor: ProcessExecutor, folder: RunFolder, epochs: int) -> None:
    """Wait until the running trial has finished some epochs.

    Args:
        executor: executor that runs the trial.
        folder: run folder of the trial.
        epochs: number of epochs.
    """

    def trained() -> bool:
        assert not executor.wait(0.05), "the trial has ended"
        return len(folder.read_progress()) >= epochs

    wait_until(trained, f"{epochs} epochs", pause=0)


def worker_of(executor: ProcessExecutor, number: int = 0) -> int:
    """Return the id of the process of a worker, as soon as it has one.

    Args:
        executor: executor of the worker.
        number: number of the worker.

    Returns:
        The id.
    """
    process = executor._workers[number].process
    wait_until(lambda: process.pid is not None, "the worker has started", pause=0.01)
    assert process.pid is not None
    return process.pid


def child_of_worker(executor: ProcessExecutor, number: int = 0) -> int:
    """Return the id of the process that a worker has for its trials.

    Args:
        executor: executor of the worker.
        number: number of the worker.

    Returns:
        The id.
    """
    (only,) = find_children(worker_of(executor, number))
    return only


def read_record(lab: Lab, trial: Trial) -> Record:
    """Read the record of a trial that has ended.

    Args:
        lab: lab of the trial.
        trial: the trial.

    Returns:
        The record.
    """
    found = RunFolder(lab.runs, trial.key).read()
    assert found is not None
    return found


def losses_of(record: Record) -> list[float]:
    """Return the loss of each epoch of a trial.

    Args:
        record: record of the trial.

    Returns:
        The losses.
    """
    return [epoch.loss for epoch in record.epochs]
