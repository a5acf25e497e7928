"""Publishing of a grid's records to MLflow, by one driver at a time."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from shlex import quote
from typing import TypeVar

from fcnlab.config.grid.grid import Grid
from fcnlab.config.grid.name import path_in_lab
from fcnlab.errors import TrackingError
from fcnlab.extensions import fcnlab_command
from fcnlab.lab import Lab
from fcnlab.runner.command import reproduce_command
from fcnlab.runner.grid_state import note_experiment, state_folder
from fcnlab.runner.lease import Leases
from fcnlab.runner.plan import Plan, PlannedTrial
from fcnlab.runner.progress.base import ProgressReporter
from fcnlab.tracking.base import TrackedGrid, TrackedTrial, Tracker
from fcnlab.tracking.store import is_installed
from fcnlab.tracking.tracker import MlflowTracker
from fcnlab.trial.record import EpochRecord, Record

T = TypeVar("T")

LOG_INTERVAL = 5.0
"""Seconds after which a running trial is created in MLflow, and between two updates of its curves.

A trial that ends sooner is written at once, which takes fewer requests.
"""


def open_tracker(grid: Grid, lab: Lab) -> MlflowTracker:
    """Open the tracker of a grid.

    Args:
        grid: the grid.
        lab: the lab, which sets the tracking URI.

    Raises:
        TrackingError: MLflow is not installed, or the store cannot be reached.
    """
    return MlflowTracker(track_grid(grid, lab))


def track_grid(grid: Grid, lab: Lab) -> TrackedGrid:
    """Describe a grid for its tracker.

    Args:
        grid: the grid.
        lab: its lab.
    """
    command = grid.command or f"{fcnlab_command(*grid.cells)} grid run {quote(path_in_lab(grid.path))}"
    return TrackedGrid(grid.name, grid.file.question, grid.path, grid.file.checkpoint, command, lab)


class OptionalTracker:
    """The tracker of a grid for as long as its store raises no error: without it, reports are made from `runs/`.

    Attributes:
        error: the error of the store; None if there was none, or if MLflow is not installed.
    """

    def __init__(self, grid: Grid, lab: Lab, error: str | None = None) -> None:
        """Open the tracker.

        Args:
            grid: the grid.
            lab: the lab, which sets the tracking URI.
            error: an error that the store has just raised: the tracker is not opened then.
        """
        self._tracker: MlflowTracker | None = None
        self.error = error
        if error is None and is_installed():
            try:
                self._tracker = open_tracker(grid, lab)
            except TrackingError as raised:
                self.error = str(raised)

    def call(self, function: Callable[[MlflowTracker | None], T]) -> T:
        """Call a function with the tracker; after an error of the store again, and from then on, with None.

        Args:
            function: function of the tracker, or of None.

        Returns:
            The result of the function.
        """
        try:
            return function(self._tracker)
        except TrackingError as raised:
            self._tracker, self.error = None, str(raised)
            return function(None)


class Publisher:
    """Publishes records to MLflow, and defers it if the store cannot be reached: trials continue, nothing is lost.

    One of several drivers of a grid holds the lease for publishing and publishes the records of all; when it exits,
    another driver takes over. Each record is therefore published once.

    Attributes:
        postponed: why publishing is deferred; None if it is not.
    """

    def __init__(self, plan: Plan, lab: Lab, leases: Leases, reporter: ProgressReporter) -> None:
        """Create a publisher; it publishes nothing before `take_over` succeeds.

        Args:
            plan: the plan of the grid.
            lab: the lab, which sets the tracking URI.
            leases: the leases of this driver.
            reporter: reports if publishing is deferred.
        """
        self.postponed: str | None = None
        self._plan = plan
        self._grid = plan.grid
        self._lab = lab
        self._leases = leases
        self._reporter = reporter
        self._folder = state_folder(plan.grid, lab)
        self._folder.mkdir(parents=True, exist_ok=True)
        self._tracker: MlflowTracker | None = None
        self._running: dict[str, _Running] = {}
        self._queue: deque[tuple[PlannedTrial, Record]] = deque()
        self._is_publishing = False

    def take_over(self) -> bool:
        """Start to publish unless another driver does; publish the records that are not published yet.

        Returns:
            Whether this driver publishes.
        """
        if not self._is_publishing and self._leases.claim(self._folder):
            self._is_publishing = True
            if not is_installed():
                file = self._grid.path
                sync = f"{fcnlab_command(*self._grid.cells)} grid sync {quote(str(file))}"
                remedy = f"; run `{sync}` where it is" if file.is_file() else ""
                self._postpone(f"MLflow is not installed{remedy}")
                return True
            with self._defer_errors():
                self._tracker = open_tracker(self._grid, self._lab)
                self._tracker.start_grid({planned.key for planned in self._plan.trials})
                note_experiment(self._grid, self._lab, self._tracker.experiment_id)
            for planned in self._plan.all_trials:  # trials may have ended since the plan was made
                record = planned.record
                if record is not None:
                    self.publish(planned, record)
        return self._is_publishing

    @contextmanager
    def _defer_errors(self) -> Iterator[None]:
        try:
            yield
        except TrackingError as error:
            self._tracker = None
            self._postpone(str(error))

    def _postpone(self, why: str) -> None:
        """Defer publishing, and report it once."""
        if self.postponed is None:
            self.postponed = why
            self._reporter.postponed(why)

    def start_trial(self, planned: PlannedTrial) -> None:
        """Set the start of a trial's run to now, unless it is already known to run.

        Args:
            planned: the trial.
        """
        self._get_running(planned)

    def _get_running(self, planned: PlannedTrial) -> _Running:
        """Return the state of a running trial, created now if it is not known."""
        return self._running.setdefault(planned.key, _Running(planned, time.time(), time.monotonic()))

    def log_progress(self, planned: PlannedTrial, epochs: Sequence[EpochRecord]) -> None:
        """Write the curves of a running trial, at most once in LOG_INTERVAL seconds.

        Args:
            planned: the trial.
            epochs: its epochs so far.
        """
        # It is not known if its record was published by `take_over` before its end was seen.
        running = self._get_running(planned)
        if time.monotonic() - running.written >= LOG_INTERVAL:
            running.written = time.monotonic()
            with self._defer_errors():
                if self._tracker is not None:
                    self._tracker.log_epochs(self._start_in(self._tracker, planned), epochs)

    def _start_in(self, tracker: Tracker, planned: PlannedTrial) -> TrackedTrial:
        """Start a trial in the tracker unless it is started there, and return it."""
        running = self._get_running(planned)
        if running.tracked is None:
            axes = {axis: str(value) for axis, value in planned.cell.axes.items() if "." in axis}
            own = self._grid.command
            command = own or reproduce_command(self._grid.path, planned.cell, planned.trial.seed)
            tracked = TrackedTrial(planned.trial, planned.cell.label, axes, command, planned.folder, running.since)
            tracker.start_trial(tracked)
            running.tracked = tracked
        return running.tracked

    def enqueue(self, planned: PlannedTrial, record: Record) -> None:
        """Queue a record for `publish_queued`, so that the next trial can be started before it is published.

        Args:
            planned: the ended trial.
            record: its record.
        """
        self._queue.append((planned, record))

    def publish_queued(self) -> None:
        """Publish the queued records."""
        while self._queue:
            self.publish(*self._queue.popleft())

    def publish(self, planned: PlannedTrial, record: Record) -> None:
        """Publish a record unless it is published: another driver may have run the trial and published it.

        Args:
            planned: the ended trial.
            record: its record.
        """
        if self._tracker is not None and not self._tracker.is_published(record):
            with self._defer_errors():
                first = planned.trial.seed == min(self._grid.seeds)  # the report shows the images of this seed
                self._tracker.log_record(self._start_in(self._tracker, planned), record, samples=first)
        self._running.pop(planned.key, None)

    def stop_trial(self, planned: PlannedTrial, epoch: int) -> None:
        """End the run of a trial that early stopping has pruned.

        Args:
            planned: the trial.
            epoch: the epoch after which it was pruned.
        """
        with self._defer_errors():
            if self._tracker is not None:
                self._tracker.pause_trial(self._start_in(self._tracker, planned), stopped_after=epoch)
        self._running.pop(planned.key, None)

    def close(self, *, complete: bool) -> None:
        """Publish the queued records, end the open runs and release the lease for publishing.

        Args:
            complete: whether all trials have ended. The status of a paused trial's run is KILLED until it is resumed.
        """
        self.publish_queued()
        with self._defer_errors():
            if self._tracker is not None:
                for running in list(self._running.values()):
                    self._tracker.pause_trial(self._start_in(self._tracker, running.planned), stopped_after=None)
                self._tracker.close(complete=complete)
        self._leases.release(self._folder)


@dataclass
class _Running:
    """A running trial.

    Attributes:
        planned: the trial.
        since: start of the trial, in seconds since 1970.
        written: time of the last write by the monotonic clock, in seconds.
        tracked: the trial as the tracker knows it; None before it is started there.
    """

    planned: PlannedTrial
    since: float
    written: float
    tracked: TrackedTrial | None = None
