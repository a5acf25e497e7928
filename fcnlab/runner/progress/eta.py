"""Estimated time until a grid is done.

Epochs of different cells take different times, so the remaining work is measured in seconds of training: for each
cell, its remaining epochs times the mean duration of its epochs, or the mean over the other cells if it has none yet.
The speed is the number of seconds of training per second of wall-clock time since training began. It therefore covers
the number of workers, evaluation, pauses and other drivers.

Example: two cells of two trials with two epochs each. After 8 seconds, two workers have trained both epochs of a trial
of cell A (0.5 s each) and one epoch of a trial of cell B (8 s):

    remaining work    2 * 0.5 s + 3 * 8 s = 25 s of training
    speed             (2 * 0.5 s + 1 * 8 s) / 8 s = 9 / 8
    time left         25 s / (9 / 8) = 22.2 s

The time left is at least that of the running trial that ends last.
"""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from fcnlab.runner.plan import Plan, PlannedTrial
from fcnlab.trial.record import EpochRecord


@dataclass
class Running:
    """A running trial.

    Attributes:
        planned: the trial.
        epochs: its epochs so far.
        before: the number of epochs that it had before this start.
        since: time of this start in seconds, by `time.monotonic`.
        seen: time of the last new epoch in seconds, by `time.monotonic`.
        idle: seconds since the last sign of progress, such as a step; None if it is not known.
    """

    planned: PlannedTrial
    epochs: Sequence[EpochRecord]
    before: int
    since: float = field(default_factory=lambda: time.monotonic())
    seen: float = field(default_factory=lambda: time.monotonic())
    idle: float | None = None

    @property
    def seconds(self) -> float:
        """Time since this start in seconds."""
        return time.monotonic() - self.since

    @property
    def last(self) -> EpochRecord | None:
        """The last epoch so far."""
        return self.epochs[-1] if self.epochs else None

    @property
    def val_miou(self) -> float | None:
        """The last val mIoU, a fraction of 1."""
        return next((epoch.val_miou for epoch in reversed(self.epochs) if epoch.val_miou is not None), None)

    @property
    def epochs_left(self) -> int:
        """The number of remaining epochs."""
        return self.planned.trial.recipe.epochs - len(self.epochs)

    def time_left(self, epoch_seconds: float | None) -> float | None:
        """Estimate the time until the trial has trained its last epoch.

        Args:
            epoch_seconds: duration of an epoch, used until the trial has trained one since this start.

        Returns:
            Seconds; None if no duration is known.
        """
        return self._time_left(self.epochs_left, epoch_seconds)

    def epoch_time_left(self, epoch_seconds: float | None) -> float | None:
        """Estimate the time until the trial has trained its current epoch.

        Args:
            epoch_seconds: duration of an epoch, used until the trial has trained one since this start.

        Returns:
            Seconds; None if no duration is known, or if the last epoch has ended and the trial is evaluated.
        """
        return self._time_left(1, epoch_seconds) if self.epochs_left else None

    def _time_left(self, epochs: int, epoch_seconds: float | None) -> float | None:
        done = len(self.epochs) - self.before
        each = (self.seen - self.since) / done if done else epoch_seconds
        return max(0.0, epochs * each - (time.monotonic() - self.seen)) if each is not None else None


@dataclass
class _Tally:
    """Finished and remaining epochs of a cell."""

    seconds: float = 0.0
    epochs: int = 0
    left: int = 0

    @property
    def epoch_seconds(self) -> float | None:
        """Mean duration of an epoch in seconds; None before the first."""
        return self.seconds / self.epochs if self.epochs else None


class EtaEstimator:
    """Estimator of the time left, from the remaining epochs of each cell and the seconds of training so far."""

    def __init__(self, plan: Plan | None = None) -> None:
        """Count the finished and remaining epochs of a plan.

        Args:
            plan: the plan; None for no trials.
        """
        self._tallies: dict[str, _Tally] = {}
        self._counted_epochs: dict[str, int] = {}  # by trial key
        self._trained_seconds = 0.0
        self._planned = time.monotonic()
        self._training_start = math.inf  # start of training; the start of workers is excluded from the speed
        for planned in plan.remaining if plan is not None else ():
            self._tally(planned).left += planned.trial.recipe.epochs
            if planned.status == "started":
                self._count(planned, planned.folder.read_progress())
        for planned in plan.trials if plan is not None else ():
            tally = self._tallies.get(planned.cell.label)
            if planned.status == "finished" and tally is not None and not tally.epochs:
                record = planned.record  # one per cell is enough
                self._add_epochs(planned, record.epochs if record is not None else ())

    def update(self, planned: PlannedTrial, epochs: Sequence[EpochRecord]) -> None:
        """Take over the epochs of a trial, run by any driver.

        Args:
            planned: the trial.
            epochs: its epochs so far; fewer than before if it was restarted.
        """
        known = self._counted_epochs.get(planned.key, 0)
        now = time.monotonic()
        # Training before the plan was made, by an earlier or another driver, does not count towards the speed.
        seconds = min(math.fsum(epoch.seconds for epoch in epochs[known:]), now - self._planned)
        if seconds:
            self._training_start = min(self._training_start, now - seconds)
        self._trained_seconds += seconds
        self._count(planned, epochs)

    def close(self, planned: PlannedTrial) -> None:
        """Remove the remaining epochs of a trial that has ended or been pruned.

        Args:
            planned: the trial.
        """
        self._tally(planned).left -= planned.trial.recipe.epochs - self._counted_epochs.pop(planned.key, 0)

    def epoch_seconds(self, planned: PlannedTrial) -> float | None:
        """Return the mean duration of an epoch of a trial's cell, else of the other cells.

        Args:
            planned: the trial.

        Returns:
            Seconds; None if no epoch has finished.
        """
        return self._tally(planned).epoch_seconds or self._mean_epoch_seconds()

    def time_left(self, running: Collection[Running]) -> float | None:
        """Estimate the time until all trials have ended.

        Args:
            running: the running trials.

        Returns:
            Seconds; None if no epoch has finished.
        """
        if self._mean_epoch_seconds() is None:
            return None
        now = time.monotonic()
        work = self._work_left() - self._partial_epochs(running, now, since=-math.inf)
        longest = max((trial.time_left(self.epoch_seconds(trial.planned)) or 0.0 for trial in running), default=0.0)
        return max(longest, work / self._speed(running, now))

    def _speed(self, running: Collection[Running], now: float) -> float:
        """Return the seconds of training per second of wall-clock time since training began."""
        if not self._trained_seconds:  # each running trial is assumed to train without a break
            return float(max(1, len(running)))
        trained = self._trained_seconds + self._partial_epochs(running, now, since=self._training_start)
        return trained / (now - self._training_start)

    def _partial_epochs(self, running: Collection[Running], now: float, since: float) -> float:
        """Return the seconds of training after `since` in epochs that have not finished."""
        return math.fsum(
            min(now - max(trial.seen, since), self.epoch_seconds(trial.planned) or 0.0) for trial in running
        )

    @property
    def fraction(self) -> float:
        """Finished share of the work in seconds of training, from 0 to 1."""
        if not any(tally.left for tally in self._tallies.values()):
            return 1.0
        return self._trained_seconds / (self._trained_seconds + self._work_left()) if self._trained_seconds else 0.0

    def _tally(self, planned: PlannedTrial) -> _Tally:
        return self._tallies.setdefault(planned.cell.label, _Tally())

    def _count(self, planned: PlannedTrial, epochs: Sequence[EpochRecord]) -> None:
        """Count the epochs of a trial, without their time towards the speed."""
        known = self._counted_epochs.get(planned.key, 0)
        self._add_epochs(planned, epochs[known:])
        self._tally(planned).left -= len(epochs) - known
        self._counted_epochs[planned.key] = len(epochs)

    def _add_epochs(self, planned: PlannedTrial, epochs: Sequence[EpochRecord]) -> None:
        tally = self._tally(planned)
        tally.seconds += math.fsum(epoch.seconds for epoch in epochs)
        tally.epochs += len(epochs)

    def _work_left(self) -> float:
        """Return the remaining work in seconds of training."""
        typical = self._mean_epoch_seconds() or 0.0
        return math.fsum(tally.left * (tally.epoch_seconds or typical) for tally in self._tallies.values())

    def _mean_epoch_seconds(self) -> float | None:
        """Return the mean duration of an epoch over the cells with a finished epoch, in seconds."""
        each = [tally.epoch_seconds for tally in self._tallies.values() if tally.epoch_seconds is not None]
        return math.fsum(each) / len(each) if each else None
