"""Run one trial: train it, evaluate it and write its record. An interrupted trial resumes from its checkpoint."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from fcnlab.config.trial import Trial
from fcnlab.data.resident import release_resident_splits
from fcnlab.errors import FcnlabError, StopRunError
from fcnlab.file_lock import FileLock, Timeout
from fcnlab.lab import Lab
from fcnlab.redaction import get_logger
from fcnlab.storage_errors import convert_storage_errors, describe_storage_error, find_storage_error
from fcnlab.training import hardware
from fcnlab.training.distributed import join_process_group
from fcnlab.training.fit import DivergenceError
from fcnlab.trial.heartbeat import Heartbeat
from fcnlab.trial.launch import launch
from fcnlab.trial.record import Failure, FailureCause, Record
from fcnlab.trial.run_folder import RunFolder
from fcnlab.trial.settings import TrialSettings
from fcnlab.trial.trainer import Paused, Trainer

LOCK_INTERVAL = 2.0
"""Seconds between two signs of progress, and two checks for a pause, of a trial that another process runs."""


def _never() -> bool:
    return False


def run_trial(
    trial: Trial,
    lab: Lab,
    settings: TrialSettings = TrialSettings(),  # noqa: B008 - frozen
    *,
    should_pause: Callable[[], bool] = _never,
    devices: int = 1,
) -> Record | None:
    """Run a trial to its end. The record of a trial that has ended is only read.

    If another process runs the trial, the call waits for it, or until it must pause; waiting counts as progress, since
    the job of the other process may be suspended for hours. An exception of the trial becomes a failed record, unless
    its reason is outside of the trial.

    Args:
        trial: the trial to run.
        lab: lab with its run folder, its data and its weights.
        settings: settings of this start.
        should_pause: function that is called after each epoch and returns whether to pause.
        devices: number of devices that train the trial, each in its own process.

    Returns:
        The record; None if the trial was paused.

    Raises:
        StopRunError: the lab cannot be written, or the inputs of the trial have changed since it was planned. There is
            no record, and the trial continues when it is run again.
        RunError: damaged files cannot be moved.
        SystemExit: one of several processes was killed.
    """
    folder = RunFolder(lab.runs, trial.key)
    folder.create()
    with convert_storage_errors(lab.output), _lock(folder, should_pause) as is_locked:
        if not is_locked:
            return None
        for line in folder.repair(checkpoints=True):
            get_logger("fcnlab").warning(line)
        existing = folder.read()
        if existing is not None:
            return existing
        folder.write_trial(trial)
        folder.rendezvous.unlink(missing_ok=True)  # of processes that were killed
        run = partial(_run_rank, trial, lab, folder, settings, should_pause, devices)
        outcome = run(0) if devices == 1 else launch(devices, run)
        folder.heartbeat.unlink(missing_ok=True)
        if isinstance(outcome, StopRunError):
            raise outcome
        if outcome is not None:
            folder.finish(outcome)
    return outcome


@contextmanager
def _lock(folder: RunFolder, should_pause: Callable[[], bool]) -> Iterator[bool]:
    """Lock a run folder; yield False if the trial must pause while another process holds the lock."""
    lock, heartbeat = FileLock(folder.lock), Heartbeat(folder.heartbeat)
    is_waiting = False
    while not _acquire(lock):
        if should_pause():
            yield False
            return
        if not is_waiting:
            get_logger("fcnlab").warning("another process runs this trial; waiting for its end")
        is_waiting = True
        heartbeat.enter("waiting for another process that runs the trial")
    try:
        yield True
    finally:
        lock.release()


def _acquire(lock: FileLock) -> bool:
    """Acquire a lock within LOCK_INTERVAL; return whether this has succeeded."""
    try:
        lock.acquire(timeout=LOCK_INTERVAL)
    except Timeout:
        return False
    return True


def _run_rank(
    trial: Trial,
    lab: Lab,
    folder: RunFolder,
    settings: TrialSettings,
    should_pause: Callable[[], bool],
    devices: int,
    rank: int,
) -> Record | StopRunError | None:
    """Run one rank.

    Returns:
        The record or that of a failure; an error outside of the trial; None if paused, and on ranks other than 0.
    """
    try:
        group = join_process_group(rank, devices, folder.rendezvous)
        trainer = Trainer(trial, lab, folder, settings, should_pause, group)
        trainer.train()
        return trainer.create_record() if group.is_main else None
    except Paused:
        return None
    except StopRunError as error:
        return error
    except Exception as error:  # noqa: BLE001 - every exception is recorded as the failure of the trial
        outside = _find_outside_reason(trial, lab, error)
        if outside is not None:
            return outside
        cause = _classify_error(error)
        if cause == "out_of_memory":
            traceback.clear_frames(error.__traceback__)  # frees their tensors: describing the error needs memory, too
            release_resident_splits()  # of earlier trials of this process
        return _create_failed_record(trial, cause, error)


def _find_outside_reason(trial: Trial, lab: Lab, error: Exception) -> StopRunError | None:
    """Return the reason of an exception outside of the trial: full storage, or inputs that have changed."""
    storage_error = find_storage_error(error, lab.output)
    if storage_error is not None:
        return StopRunError(describe_storage_error(storage_error))
    try:
        lab.check_inputs(trial)
    except StopRunError as changed:
        return changed
    except FcnlabError:  # it is an error of the trial, too
        return None
    return None


def _classify_error(error: Exception) -> FailureCause:
    if isinstance(error, DivergenceError):
        return "diverged"
    return "out_of_memory" if hardware.is_out_of_memory(error) else "exception"


def _create_failed_record(trial: Trial, cause: FailureCause, error: Exception) -> Record:
    trace = "".join(traceback.format_exception(error)) if error.__traceback__ else ""
    # The message of a KeyError is only the key.
    message = f"KeyError: {error}" if isinstance(error, KeyError) else str(error) or type(error).__name__
    failure = Failure(cause=cause, message=message, traceback=trace)
    return Record.create(trial, "failed", failure=failure)
