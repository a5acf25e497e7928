"""Base class of progress reporters, with the counts."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count, takewhile

from fcnlab.runner.plan import Plan, PlannedTrial
from fcnlab.runner.progress.eta import EtaEstimator, Running
from fcnlab.trial.record import Attempt, EpochRecord, Record
from fcnlab.trial.run_folder import FileStamp, stamp_file


@dataclass(frozen=True)
class Waiting:
    """Numbers of trials that cannot start yet.

    Attributes:
        for_init: trials whose `init_from` trial has not finished.
        for_decision: trials that have reached the epoch of an early stopping decision.
    """

    for_init: int = 0
    for_decision: int = 0

    def describe(self, elsewhere: int) -> str:
        """Describe why a driver has nothing to run.

        Args:
            elsewhere: the number of trials that other drivers run.
        """
        reasons = [
            f"{elsewhere} run by other drivers" if elsewhere else "",
            f"{self.for_init} wait for the trial they are initialized from" if self.for_init else "",
            f"{self.for_decision} wait for an early stopping decision" if self.for_decision else "",
        ]
        return ", ".join(filter(None, reasons)) or "starting"


class ProgressReporter:
    """Base class of progress reporters: it counts events and prints nothing."""

    def __init__(self) -> None:
        self.running: dict[str, Running] = {}
        self.total = self.done = self.failed = self.pruned = self.run_elsewhere = 0
        self.waiting_for = Waiting()
        self.is_pausing = False
        self._reason: str | None = None
        self.decoded: tuple[str, int, int] | None = None  # split, decoded images, images
        self.eta = EtaEstimator()
        self._resuming: dict[str, FileStamp | None] = {}  # stamp of the epochs of an earlier start, by key

    def __enter__(self) -> ProgressReporter:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def on_plan(self, plan: Plan) -> None:
        """Report the plan before any trial starts.

        Args:
            plan: the plan.
        """
        counts = plan.counts()
        self.total, self.failed, self.pruned = len(plan.all_trials), counts["failed"], counts["pruned"]
        self.done = self.total - len(plan.remaining)
        self.eta = EtaEstimator(plan)

    def on_remark(self, text: str) -> None:
        """Report a remark on the grid or the run.

        Args:
            text: one line.
        """

    def on_check_start(self) -> None:
        """Report that torch is imported to check extensions, and networks that were not checked on this machine."""

    def on_decode_start(self, split: str, samples: int) -> Callable[[], None]:
        """Report that a split is being decoded for all trials.

        Args:
            split: dataset and split, such as `camvid train`.
            samples: the number of images.

        Returns:
            A function to call after each decoded image.
        """
        done = count(1)

        def advance() -> None:
            self.decoded = (split, next(done), samples)
            self._update()

        return advance

    def on_trial_start(self, planned: PlannedTrial) -> None:
        """Report that a trial starts. If it has epochs, `on_trial_resume` follows, or its end.

        Args:
            planned: the trial.
        """
        self.decoded = self._reason = None
        stamp = stamp_file(planned.folder.progress)
        epochs = planned.folder.read_progress()
        self.eta.update(planned, epochs)
        self.running[planned.key] = Running(planned, epochs, before=len(epochs))
        if epochs:
            self._resuming[planned.key] = stamp
        self._update()

    def on_trial_resume(self, planned: PlannedTrial, repeated: int) -> None:
        """Report that a trial has read its checkpoint; `running` has the epochs that the checkpoint contains.

        Args:
            planned: the trial.
            repeated: the number of later epochs, which are trained again.
        """

    def on_device_wait(self, planned: PlannedTrial) -> None:
        """Report that a trial waits until no other trial uses its device.

        Args:
            planned: the trial.
        """

    def on_progress(self, planned: PlannedTrial, epochs: list[EpochRecord]) -> bool:
        """Report the epochs of a running trial.

        Args:
            planned: the trial.
            epochs: all epochs so far.

        Returns:
            Whether there is a new epoch.
        """
        if planned.key in self._resuming:
            self._check_resumed(planned)  # the epochs may be those of the earlier start; the next call has the new ones
            return False
        trial = self.running[planned.key]
        is_new = len(epochs) > len(trial.epochs)
        if is_new:
            self.eta.update(planned, epochs)
            trial.epochs, trial.seen = epochs, time.monotonic()
        self._update()
        return is_new

    def on_trial_end(self, planned: PlannedTrial, record: Record) -> None:
        """Report that a trial has a record, written by any driver.

        Args:
            planned: the trial.
            record: its record.
        """
        self._remove(planned, record.epochs)
        self.eta.close(planned)
        self.done += 1
        self.failed += record.status == "failed"
        self._update()

    def on_trial_retry(self, planned: PlannedTrial, attempt: Attempt, remedy: str) -> None:  # noqa: ARG002 - for subclasses
        """Report an attempt that ended without a record; the trial will be retried.

        Args:
            planned: the trial.
            attempt: the attempt.
            remedy: description of the next attempt, from `retry_policy.describe_retry`.
        """
        self._remove(planned, planned.folder.read_progress())

    def on_pause(self) -> None:
        """Report that running trials finish their epoch and no more trials start."""
        self.is_pausing = True
        self._update()

    def on_trial_pause(self, planned: PlannedTrial) -> None:
        """Report that a trial has paused after an epoch, from which it can resume.

        Args:
            planned: the trial.
        """
        self._remove(planned, planned.folder.read_progress())

    def on_trial_prune(self, planned: PlannedTrial, epoch: int) -> None:  # noqa: ARG002 - for subclasses
        """Report that early stopping has pruned a trial.

        Args:
            planned: the trial.
            epoch: the epoch after which it was pruned.
        """
        self.eta.close(planned)
        self.done += 1
        self.pruned += 1
        self._update()

    def on_trials_elsewhere(self, trials: int) -> None:
        """Report the number of trials that other drivers run.

        Args:
            trials: the number of trials.
        """
        self.run_elsewhere = trials

    def on_wait(self, waiting: Waiting) -> bool:
        """Report why no trial runs in this driver.

        Args:
            waiting: the trials that cannot start yet.

        Returns:
            Whether the reason has changed.
        """
        self.waiting_for = waiting
        before, self._reason = self._reason, self.idle
        self._update()
        return self._reason not in (None, before)

    def on_publishing_deferred(self, why: str) -> None:
        """Report that publishing to a tracker is deferred.

        Args:
            why: the error message.
        """

    @property
    def time_left(self) -> float | None:
        """Estimated seconds until the grid is done; None if no epoch has finished."""
        return self.eta.time_left(self.running.values())

    @property
    def pause_time_left(self) -> float | None:
        """Estimated seconds until all running trials have finished their epoch; None without an estimate."""
        left = [trial.epoch_time_left(self.eta.epoch_seconds(trial.planned)) for trial in self.running.values()]
        known = [seconds for seconds in left if seconds is not None]
        return max(known) if known and len(known) == len(left) else None

    @property
    def idle(self) -> str | None:
        """The reason why no trial runs in this driver; None while one does."""
        if self.running:
            return None
        if self.decoded is not None:
            split, done, samples = self.decoded
            return f"decoding {split}, {done} of {samples} images"
        if self.total and self.done == self.total:
            return "all trials have ended; publishing"
        return self.waiting_for.describe(self.run_elsewhere)

    def describe_counts(self) -> str:
        """Describe the counts of the grid in one line."""
        if not self.total:
            return "starting"
        left = self.time_left if self.running and not self.is_pausing else None  # others report only ends of trials
        parts = [
            f"{self.done}/{self.total} trials",
            f"{self.failed} failed",
            f"{self.pruned} pruned" if self.pruned else "",
            f"{self.run_elsewhere} run elsewhere" if self.run_elsewhere and self.running else "",
            self.idle or "",
            f"about {format_duration(left)} left" if left else "",
            self.describe_pause() if self.running and self.is_pausing else "",
        ]
        return ", ".join(filter(None, parts))

    def describe_pause(self) -> str:
        """Describe what running trials do before they pause, and for how long."""
        trials, left = len(self.running), self.pause_time_left
        text = "1 trial finishes its epoch" if trials == 1 else f"{trials} trials finish their epoch"
        return text + (f", in about {format_duration(left)}" if left is not None else "")

    def _check_resumed(self, planned: PlannedTrial) -> None:
        """Report that a trial resumes if it has replaced the epochs of its earlier start.

        It writes the epochs of its checkpoint before it trains. Trained again, an epoch has another duration.
        """
        if stamp_file(planned.folder.progress) == self._resuming[planned.key]:
            return
        del self._resuming[planned.key]
        trial = self.running[planned.key]
        before, now = trial.epochs, planned.folder.read_progress()
        trial.epochs = [old for old, new in takewhile(lambda pair: pair[0] == pair[1], zip(before, now, strict=False))]
        trial.before = len(trial.epochs)
        self.eta.update(planned, trial.epochs)
        self.on_trial_resume(planned, len(before) - trial.before)
        self._update()

    def _update(self) -> None:
        """Show the state after an event; the base class shows nothing."""

    def _remove(self, planned: PlannedTrial, epochs: Sequence[EpochRecord]) -> None:
        """Remove a trial from the running ones."""
        if planned.key in self._resuming:  # it has ended before the next check
            del self._resuming[planned.key]
            self.on_trial_resume(planned, repeated=0)
        self.running.pop(planned.key, None)
        self.eta.update(planned, epochs)


def format_duration(seconds: float | None) -> str:
    """Format a duration, such as 45 s, 12 min or 3 h 20 min.

    Args:
        seconds: the duration in seconds; None for `unknown`.
    """
    if seconds is None:
        return "unknown"
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
