"""How much of a grid is left, in seconds of training, and how long that takes.

Epochs of different cells cost differently, so what is left is counted in seconds: the epochs that a cell has left times
what one of its epochs took, or one of the other cells' where it has shown none. How many such seconds pass in one
second of the clock is what has been seen so far; that covers workers, scoring, pauses and other drivers alike.
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
    """A trial that runs here: its epochs so far, how many it had before, since when, and when the last was seen."""

    planned: PlannedTrial
    epochs: Sequence[EpochRecord]
    before: int
    since: float = field(default_factory=lambda: time.monotonic())
    seen: float = field(default_factory=lambda: time.monotonic())

    @property
    def seconds(self) -> float:
        """How long it has run here."""
        return time.monotonic() - self.since

    @property
    def last(self) -> EpochRecord | None:
        """Its last epoch so far."""
        return self.epochs[-1] if self.epochs else None

    @property
    def val_miou(self) -> float | None:
        """Its last figure on val, a fraction of 1."""
        return next((epoch.val_miou for epoch in reversed(self.epochs) if epoch.val_miou is not None), None)

    @property
    def to_do(self) -> int:
        """How many epochs it has left."""
        return self.planned.trial.recipe.epochs - len(self.epochs)

    def time_left(self, epoch: float | None) -> float | None:
        """Seconds to its end, by its own epochs of this run, else by what an `epoch` takes; None if nobody knows."""
        done = len(self.epochs) - self.before
        each = (self.seen - self.since) / done if done else epoch
        return max(0.0, self.to_do * each - (time.monotonic() - self.seen)) if each is not None else None


@dataclass
class _Tally:
    """What epochs of a cell took, and how many are left of it."""

    seconds: float = 0.0
    epochs: int = 0
    left: int = 0

    @property
    def epoch(self) -> float | None:
        """Seconds an epoch; None before the first."""
        return self.seconds / self.epochs if self.epochs else None


class EtaEstimator:
    """Keeps count of the epochs that are left of a grid, by cell, and of the seconds of training that were done."""

    def __init__(self, plan: Plan | None = None) -> None:
        self._tallies: dict[str, _Tally] = {}
        self._known: dict[str, int] = {}  # by trial: how many epochs of it are counted
        self._done = 0.0
        self._planned = time.monotonic()
        self._began = math.inf  # when the first of these seconds began: workers that start are no measure of the pace
        for planned in plan.remaining if plan is not None else ():
            self._tally(planned).left += planned.trial.recipe.epochs
            if planned.status == "started":
                self.saw(planned, planned.folder.read_progress())
        for planned in plan.trials if plan is not None else ():
            known = self._tallies.get(planned.cell.label)
            if planned.status == "finished" and known is not None and not known.epochs:
                record = planned.record  # one is enough of each cell
                self._learn(planned, record.epochs if record is not None else ())

    def saw(self, planned: PlannedTrial, epochs: Sequence[EpochRecord]) -> None:
        """A trial has come so far, here or elsewhere; it has fewer epochs than before if it was begun anew."""
        known = self._known.get(planned.key, 0)
        now = time.monotonic()
        # What was done before the plan, by an earlier or another driver, is no measure of the pace now.
        seconds = min(math.fsum(epoch.seconds for epoch in epochs[known:]), now - self._planned)
        if seconds:
            self._began = min(self._began, now - seconds)
        self._learn(planned, epochs[known:])
        self._done += seconds
        self._tally(planned).left -= len(epochs) - known
        self._known[planned.key] = len(epochs)

    def close(self, planned: PlannedTrial) -> None:
        """Nothing is left to do of a trial."""
        self._tally(planned).left -= planned.trial.recipe.epochs - self._known.pop(planned.key, 0)

    def epoch(self, planned: PlannedTrial) -> float | None:
        """Seconds of training that an epoch of a trial takes, as far as this is known."""
        return self._tally(planned).epoch or self._typical()

    def left(self, running: Collection[Running]) -> float | None:
        """Seconds until all is done; None before anything can be said."""
        if self._typical() is None:
            return None
        now = time.monotonic()
        begun = math.fsum(min(now - one.seen, self.epoch(one.planned) or 0.0) for one in running)
        # Until an epoch has been done, each trial that runs is taken to train without a break.
        speed = (self._done + begun) / (now - self._began) if self._done else float(max(1, len(running)))
        longest = max((one.time_left(self.epoch(one.planned)) or 0.0 for one in running), default=0.0)
        return max(longest, (self._left() - begun) / speed)

    @property
    def fraction(self) -> float:
        """How much of what there was to do is done, by seconds of training."""
        if not any(tally.left for tally in self._tallies.values()):
            return 1.0
        return self._done / (self._done + self._left()) if self._done else 0.0

    def _tally(self, planned: PlannedTrial) -> _Tally:
        return self._tallies.setdefault(planned.cell.label, _Tally())

    def _learn(self, planned: PlannedTrial, epochs: Sequence[EpochRecord]) -> None:
        tally = self._tally(planned)
        tally.seconds += math.fsum(epoch.seconds for epoch in epochs)
        tally.epochs += len(epochs)

    def _left(self) -> float:
        """Seconds of training that are left to do."""
        typical = self._typical() or 0.0
        return math.fsum(tally.left * (tally.epoch or typical) for tally in self._tallies.values())

    def _typical(self) -> float | None:
        """Seconds that an epoch takes on average over the cells that have shown any."""
        each = [tally.epoch for tally in self._tallies.values() if tally.epoch is not None]
        return math.fsum(each) / len(each) if each else None
