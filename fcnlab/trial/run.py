"""Run one trial: train it, evaluate it and write its record. An interrupted trial resumes from its checkpoint."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from functools import partial

from filelock import FileLock

from fcnlab.config.trial import Trial
from fcnlab.data.resident import release_resident_splits
from fcnlab.lab import Lab
from fcnlab.redaction import get_logger
from fcnlab.settings import CHECKPOINT_EVERY
from fcnlab.training import hardware
from fcnlab.training.distributed import join_process_group
from fcnlab.training.fit import DivergenceError
from fcnlab.trial.launch import launch
from fcnlab.trial.record import Failure, FailureCause, Record
from fcnlab.trial.run_folder import RunFolder
from fcnlab.trial.trainer import Paused, RunOptions, Trainer


def _never() -> bool:
    return False


def run_trial(
    trial: Trial,
    lab: Lab,
    *,
    pause_after: int | None = None,
    micro_batches: int = 1,
    should_pause: Callable[[], bool] = _never,
    devices: int = 1,
    sharing: int = 1,
    checkpoint_every: float = CHECKPOINT_EVERY,
    log_every: int | None = None,
) -> Record | None:
    """Run a trial to its end. The record of a trial that has ended is only read.

    If another process runs the trial, the call waits for it. An exception of the trial becomes a failed record.

    Args:
        trial: the trial to run.
        lab: lab with its run folder, its data and its weights.
        pause_after: epoch after which to pause.
        micro_batches: factor on the recipe's number of micro-batches.
        should_pause: function that is called after each epoch and returns whether to pause.
        devices: number of devices that train the trial, each in its own process.
        sharing: number of trials that share the device.
        checkpoint_every: seconds between two checkpoints; 0 writes one after each epoch.
        log_every: steps between two training losses that are recorded; None records none.

    Returns:
        The record; None if the trial was paused.

    Raises:
        RunError: the lab cannot be written.
        SystemExit: one of several processes was killed.
    """
    folder = RunFolder(lab.runs, trial.key)
    folder.create()
    with FileLock(folder.lock):
        for line in folder.repair(checkpoints=True):
            get_logger("fcnlab").warning(line)
        existing = folder.read()
        if existing is not None:
            return existing
        folder.write_trial(trial)
        folder.rendezvous.unlink(missing_ok=True)  # of processes that were killed
        options = RunOptions(
            micro_batches, lambda epoch: epoch == pause_after or should_pause(), sharing, checkpoint_every, log_every
        )
        run = partial(_run_rank, trial, lab, folder, options, devices)
        record = run(0) if devices == 1 else launch(devices, run)
        if record is not None:
            folder.finish(record)
    return record


def _run_rank(trial: Trial, lab: Lab, folder: RunFolder, options: RunOptions, devices: int, rank: int) -> Record | None:
    """Run one rank. Returns the record or that of a failure; None if paused, and on ranks other than 0."""
    try:
        group = join_process_group(rank, devices, folder.rendezvous)
        trainer = Trainer(trial, lab, folder, options, group)
        trainer.train()
        return trainer.create_record() if group.is_main else None
    except Paused:
        return None
    except Exception as error:  # noqa: BLE001 - every exception is recorded as the failure of the trial
        cause = _classify_error(error)
        if cause == "out_of_memory":
            release_resident_splits()  # of earlier trials of this process
        return _create_failed_record(trial, cause, error)


def _classify_error(error: Exception) -> FailureCause:
    if isinstance(error, DivergenceError):
        return "diverged"
    return "out_of_memory" if hardware.is_out_of_memory(error) else "exception"


def _create_failed_record(trial: Trial, cause: FailureCause, error: Exception) -> Record:
    trace = "".join(traceback.format_exception(error)) if error.__traceback__ else ""
    message = str(error) or type(error).__name__
    failure = Failure(cause=cause, message=message, traceback=trace)
    return Record.create(trial, "failed", failure=failure)
