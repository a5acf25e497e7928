"""The scheduler of a driver: it starts the remaining trials of a grid on an executor and handles their ends."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Literal

from fcnlab.console import format_count
from fcnlab.errors import StopRunError
from fcnlab.paths import exists
from fcnlab.runner import retry_policy
from fcnlab.runner.executors.base import Executor, Job, JobExit
from fcnlab.runner.interrupts import Interrupts
from fcnlab.runner.lease import Leases
from fcnlab.runner.plan import Plan, PlannedTrial
from fcnlab.runner.progress.base import ProgressReporter, Waiting
from fcnlab.runner.pruning import Pruner
from fcnlab.runner.publisher import Publisher
from fcnlab.settings import RunOptions
from fcnlab.storage_errors import convert_storage_errors
from fcnlab.trial.record import Attempt, EpochRecord, Record
from fcnlab.trial.run_folder import FileStamp, RunFolder, stamp_file

POLL_INTERVAL = 0.25
"""Seconds between two checks of the trials that run here."""

ELSEWHERE_INTERVAL = 2.0
"""Seconds between two checks of the trials that other drivers run."""


class _State(Enum):
    """State of a remaining trial for this driver."""

    PENDING = auto()
    """It is neither running here nor known to be leased by another driver."""

    RUNNING = auto()
    """It runs on this driver's executor."""

    ELSEWHERE = auto()
    """Another driver has leased it."""

    ENDED = auto()
    """It has a record or has been pruned."""


@dataclass
class _TrialState:
    """A trial that remained when the run began.

    Attributes:
        job: the current job, while the trial runs here.
        epochs: its epochs when the job was started.
        waits: whether the job has been reported as waiting for its device, and not as started.
        progress: its epochs when they were last read.
        stamp: the stamp of their file then.
    """

    planned: PlannedTrial
    state: _State = _State.PENDING
    job: Job | None = None
    epochs: Sequence[EpochRecord] = ()
    waits: bool = False
    progress: list[EpochRecord] = field(default_factory=list)
    stamp: FileStamp | None = None

    def read_progress(self) -> list[EpochRecord]:
        """Return the epochs up to now. The file is read only after it was replaced: long trials have large ones."""
        stamp = stamp_file(self.planned.folder.progress)
        if stamp is None or stamp != self.stamp:
            self.stamp, self.progress = stamp, self.planned.folder.read_progress()
        return self.progress


class Scheduler:
    """Starts the remaining trials of a plan and handles their ends, until every trial has ended on some driver."""

    def __init__(
        self,
        plan: Plan,
        leases: Leases,
        publisher: Publisher,
        reporter: ProgressReporter,
        options: RunOptions,
        interrupts: Interrupts,
    ) -> None:
        """Create a scheduler; `run` starts the trials.

        Args:
            plan: the plan of the grid.
            leases: the leases of this driver.
            publisher: publishes the records.
            reporter: reports the progress.
            options: the options of the run.
            interrupts: the signals to this driver; running trials pause after their epoch.
        """
        self._leases = leases
        self._publisher = publisher
        self._reporter = reporter
        self._options = options
        self._interrupts = interrupts
        self._has_failure = False
        self._stop: str | None = None  # why the run must end
        self._root = plan.all_trials[0].runs.parent
        self._trials = {planned.key: _TrialState(planned) for planned in plan.remaining}
        self._planned_keys = {planned.key for planned in plan.all_trials}
        self._checked_elsewhere = 0.0
        self._pruner = Pruner(plan)

    @property
    def is_done(self) -> bool:
        """True if every trial has ended."""
        return all(trial.state is _State.ENDED for trial in self._trials.values())

    @property
    def is_stopping(self) -> bool:
        """True if no more trials are started."""
        stops = self._stop is not None or (self._options.fail_fast and self._has_failure)
        return stops or self._interrupts.received

    @property
    def _leaves_trials(self) -> bool:
        """True if no trial runs here or can be started, and those of other drivers are not waited for."""
        if self._options.wait or self._select(_State.RUNNING) or not self._select(_State.ELSEWHERE):
            return False
        pending = [trial.planned for trial in self._select(_State.PENDING)]
        return all(self._waits_for_init(planned) or self._pruner.is_waiting(planned) for planned in pending)

    def run(self, create_executor: Callable[[], Executor]) -> None:
        """Run the trials that this driver can lease, until all trials have ended or the running trials are paused.

        With the option not to wait, the run also ends when the remaining trials are left to other drivers.

        Args:
            create_executor: creates the executor.

        Raises:
            StopRunError: a trial or this driver met a reason outside of the trial to end the run, such as a full disk.
        """
        with self._interrupts.deferred(), create_executor() as executor:
            while not (self.is_done or self.is_stopping or self._leaves_trials):
                with self._stop_on_storage_error():
                    self._start_trials(executor)
                    self._poll(executor)
            if self._select(_State.RUNNING):
                if self._stop is not None:
                    self._reporter.on_remark(f"stopping: {self._stop}")
                self._reporter.on_pause()
                executor.pause()
            while self._select(_State.RUNNING):
                with self._stop_on_storage_error():
                    self._poll(executor)
        if self._stop is not None:
            raise StopRunError(self._stop)
        if self._leaves_trials:
            remaining = sum(trial.state is not _State.ENDED for trial in self._trials.values())
            self._reporter.on_remark(
                f"{format_count(remaining, 'trial')} left to other drivers, without waiting for them"
            )

    @contextmanager
    def _stop_on_storage_error(self) -> Iterator[None]:
        """End the run because of an error of storage, so that running trials pause after their epoch."""
        try:
            with convert_storage_errors(self._root):
                yield
        except StopRunError as error:
            self._stop = self._stop or str(error)

    def _select(self, *states: _State) -> list[_TrialState]:
        return [trial for trial in self._trials.values() if trial.state in states]

    def _poll(self, executor: Executor) -> None:
        """Handle ended jobs and follow the others."""
        for ended in executor.wait(POLL_INTERVAL):
            with self._stop_on_storage_error():  # each exit is received once
                self._handle_exit(ended, executor)
        self._publisher.report()
        for trial in self._select(_State.RUNNING):
            if trial.waits and trial.planned.key not in executor.waiting:
                trial.waits = False
                self._leases.note_waiting(trial.planned.folder.path, False)
                self._reporter.on_trial_start(trial.planned)
            if trial.waits:
                continue
            epochs = trial.read_progress()
            self._reporter.on_progress(trial.planned, epochs)
            self._publisher.log_progress(trial.planned, epochs)
        if time.monotonic() - self._checked_elsewhere > ELSEWHERE_INTERVAL:
            self._check_elsewhere()

    def _start_trials(self, executor: Executor) -> None:
        """Start the pending trials in order, while there are free slots."""
        for trial in self._select(_State.PENDING):
            planned = trial.planned
            if not executor.free_slots or self._stop is not None:
                return
            # An earlier trial of this loop may have led to a decision that prunes this one.
            if trial.state is not _State.PENDING or self._waits_for_init(planned) or self._pruner.is_waiting(planned):
                continue
            planned.folder.path.mkdir(parents=True, exist_ok=True)  # it may have been removed
            if self._leases.claim(planned.folder.path):
                self._start_or_release(trial, executor)
            else:
                trial.state = _State.ELSEWHERE

    def _start_or_release(self, trial: _TrialState, executor: Executor) -> None:
        """Start a leased trial, unless another driver has run it, or trained it up to the next decision."""
        planned = trial.planned
        record = self._read_record(planned)
        if record is None and self._stop is None:
            self._prune(planned)
            if trial.state is _State.PENDING and not self._pruner.is_waiting(planned):
                self._start(trial, executor)
                return
        self._leases.release(planned.folder.path)
        if record is not None:
            self._end(trial, record)

    def _waits_for_init(self, planned: PlannedTrial) -> bool:
        """Return whether the trial that this one is initialized from has not ended."""
        key = planned.trial.init_from
        if key is None or key not in self._planned_keys:  # the grid has the key of a trial that has finished
            return False
        init = self._trials.get(key)
        if init is not None:  # while it runs, it may have the record of an attempt that is retried
            return init.state is not _State.ENDED
        return RunFolder(planned.runs, key).read() is None

    def _read_record(self, planned: PlannedTrial) -> Record | None:
        """Read the record of a trial; if a newer version of fcnlab has written its files, the run must end."""
        try:
            return planned.folder.read_compatible()
        except StopRunError as error:
            self._stop = self._stop or str(error)
            return None

    def _start(self, trial: _TrialState, executor: Executor) -> None:
        planned = trial.planned
        _discard_lost_epochs(planned.folder)
        trial.job = retry_policy.create_job(
            planned.trial,
            planned.folder.attempts(),
            shares_devices=executor.shares_devices,
            pause_after=self._pruner.pause_after(planned),
            options=self._options,
        )
        trial.epochs = planned.folder.read_progress()
        executor.start(trial.job)
        trial.state = _State.RUNNING
        trial.waits = planned.key in executor.waiting
        self._leases.note_waiting(planned.folder.path, trial.waits)
        self._publisher.start_trial(planned)
        if trial.waits:
            self._reporter.on_device_wait(planned)
        else:
            self._reporter.on_trial_start(planned)

    def _handle_exit(self, ended: JobExit, executor: Executor) -> None:
        """Handle an ended job: end the trial, retry it or report the pause."""
        trial = self._trials[ended.key]
        planned = trial.planned
        trial.state = _State.PENDING
        self._stop = self._stop or ended.stop
        if not self._leases.holds(planned.folder.path):  # this machine was suspended, and another driver took over
            trial.state = _State.ELSEWHERE
            self._publisher.leave_trial(planned)
            self._reporter.on_trial_pause(planned)
            return
        record = self._read_record(planned)
        attempt = self._find_failed_attempt(trial, ended, record)
        if attempt is not None:
            record = self._retry_or_fail(planned, attempt, executor)
        if record is not None:
            self._end(trial, record)
        elif attempt is None:
            self._reporter.on_trial_pause(planned)
        self._leases.release(planned.folder.path)
        self._prune(planned)

    def _find_failed_attempt(self, trial: _TrialState, ended: JobExit, record: Record | None) -> Attempt | None:
        """Return the attempt that has just failed; None if the trial has a record that counts, or was paused.

        An attempt fails if its worker was lost, if memory ran out, or if it ended without progress. A worker that is
        lost while the run stops may have been stopped with it, as the nodes of a cluster are at the end of a job.
        """
        epochs = trial.planned.folder.read_progress()
        cause: Literal["lost", "out_of_memory"]
        if record is not None:
            if record.failure is None or record.failure.cause != "out_of_memory":
                return None
            cause, message = "out_of_memory", record.failure.message.splitlines()[0]
        elif ended.error is not None and not (self.is_stopping and ended.cause == "lost"):
            cause, message = ended.cause, ended.error
        # A trial that resumes from a checkpoint first replaces later epochs, so fewer epochs than before are progress.
        elif epochs == trial.epochs and not self.is_stopping:  # it would be started again and again
            cause, message = "lost", "its process ended without a record and without an epoch"
        else:
            return None
        job = trial.job
        assert job is not None, "the trial was started"
        return Attempt(
            cause=cause, message=message, epoch=len(epochs), micro_batches=job.micro_batches, exclusive=job.exclusive
        )

    def _retry_or_fail(self, planned: PlannedTrial, attempt: Attempt, executor: Executor) -> Record | None:
        """Store a failed attempt; return a failed record if the trial is not retried."""
        attempts = planned.folder.add_attempt(attempt)
        shares = executor.shares_devices
        failure = retry_policy.find_failure(planned.trial, attempts, shares_devices=shares)
        if attempt.cause == "out_of_memory":
            planned.folder.restart()
        if failure is None:
            _discard_lost_epochs(planned.folder)
            job = retry_policy.create_job(planned.trial, attempts, shares_devices=shares)
            remedy = retry_policy.describe_retry(job, resumes=bool(planned.folder.read_progress()))
            self._reporter.on_trial_retry(planned, attempt, remedy)
            return None
        record = Record.create(planned.trial, "failed", failure=failure)
        planned.folder.finish(record)
        return record

    def _end(self, trial: _TrialState, record: Record) -> None:
        trial.state = _State.ENDED
        self._has_failure = self._has_failure or record.status == "failed"
        self._publisher.publish(trial.planned)
        self._reporter.on_trial_end(trial.planned, record)

    def _prune(self, *progressed: PlannedTrial) -> None:
        """Prune weak cells after some trials have made progress."""
        for planned, epoch in self._pruner.update(progressed):
            trial = self._trials.get(planned.key)
            if trial is not None and trial.state is not _State.ENDED:
                trial.state = _State.ENDED
                self._publisher.prune_trial(planned, epoch)
                self._reporter.on_trial_prune(planned, epoch)

    def _check_elsewhere(self) -> None:
        """Check the trials of other drivers, and take over those that have been released."""
        self._checked_elsewhere = time.monotonic()
        self._publisher.take_over()
        elsewhere = self._select(_State.ELSEWHERE)
        for trial in elsewhere:
            if self._leases.holder(trial.planned.folder.path) is not None:
                continue
            trial.state = _State.PENDING
            record = self._read_record(trial.planned)
            if record is not None:
                self._end(trial, record)
        self._prune(*(trial.planned for trial in elsewhere))
        self._reporter.on_trials_elsewhere(len(self._select(_State.ELSEWHERE)))
        if not self._select(_State.RUNNING) and not self.is_stopping:
            pending = [trial.planned for trial in self._select(_State.PENDING)]
            self._reporter.on_wait(
                Waiting(
                    for_init=sum(map(self._waits_for_init, pending)),
                    for_decision=sum(map(self._pruner.is_waiting, pending)),
                )
            )


def _discard_lost_epochs(folder: RunFolder) -> None:
    """Delete the epochs of a trial that has no checkpoint, such as after the disk was full: it trains them again."""
    if not (exists(folder.checkpoint) or exists(folder.previous_checkpoint)):
        folder.restart()
