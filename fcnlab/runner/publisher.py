"""Publishing of a grid's records to its trackers, by one driver at a time."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from fcnlab.config.grid.grid import Grid
from fcnlab.errors import TrackingError
from fcnlab.lab import Lab
from fcnlab.runner.command import reproduce_command
from fcnlab.runner.grid_state import state_folder
from fcnlab.runner.lease import Leases
from fcnlab.runner.plan import Plan, PlannedTrial
from fcnlab.runner.progress.base import ProgressReporter
from fcnlab.runner.trackers import GuardedTracker, track_grid
from fcnlab.tracking.base import TrackedTrial
from fcnlab.tracking.published_report import read_report_digest
from fcnlab.tracking.store import is_installed
from fcnlab.tracking.tracker import MlflowTracker
from fcnlab.tracking.view import format_runs_page
from fcnlab.trial.record import EpochRecord, Record

T = TypeVar("T")

LOG_INTERVAL = 5.0
"""Seconds after which a running trial is created in a tracker, and between two updates of its curves.

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


class OptionalTracker:
    """The MLflow experiment of a grid while its store raises no error: without it, reports are made from `runs/`.

    It is opened by the first call, since importing MLflow takes seconds.

    Attributes:
        error: the error of the store; None if there was none, or if MLflow is not selected or not installed.
    """

    def __init__(self, grid: Grid, lab: Lab, error: str | None = None) -> None:
        """Select the tracker.

        Args:
            grid: the grid.
            lab: the lab, which sets the tracking URI.
            error: an error that the store has just raised: the tracker is not opened then.
        """
        self._grid, self._lab = grid, lab
        self._tracker: MlflowTracker | None = None
        self._uses_mlflow = self._unopened = error is None and "mlflow" in lab.trackers and is_installed()
        self.error = error

    @property
    def has_pages(self) -> bool:
        """True if the store is a server with pages of runs, to which a report links."""
        return self._uses_mlflow and format_runs_page(self._lab.tracking_uri, "") != ""

    def has_report(self, digest: str) -> bool:
        """Return whether the grid's run is known to have a report, without opening the tracker.

        Args:
            digest: digest of the report.
        """
        return self._uses_mlflow and read_report_digest(self._lab.tracking_uri, self._grid.name) == digest

    def call(self, function: Callable[[MlflowTracker | None], T]) -> T:
        """Call a function with the tracker; after an error of the store again, and from then on, with None.

        Args:
            function: function of the tracker, or of None.

        Returns:
            The result of the function.
        """
        try:
            if self._unopened:
                self._unopened = False
                self._tracker = open_tracker(self._grid, self._lab)
            return function(self._tracker)
        except TrackingError as raised:
            self._tracker, self.error = None, str(raised)
            return function(None)


class Publisher:
    """Publishes records to the trackers, and defers it for a tracker that raises an error: trials continue.

    One of several drivers of a grid holds the lease for publishing and publishes the records of all; when it exits,
    another driver takes over. Each record is therefore published once.
    """

    def __init__(self, plan: Plan, lab: Lab, leases: Leases, reporter: ProgressReporter) -> None:
        """Create a publisher; it publishes nothing before `take_over` succeeds.

        Args:
            plan: the plan of the grid.
            lab: the lab, which selects the trackers.
            leases: the leases of this driver.
            reporter: reports if publishing is deferred.
        """
        self._plan = plan
        self._grid = plan.grid
        self._lab = lab
        self._leases = leases
        self._folder = state_folder(plan.grid, lab)
        self._folder.mkdir(parents=True, exist_ok=True)
        self._trackers = [GuardedTracker(name, reporter.postponed) for name in lab.trackers]
        self._running: dict[str, _Running] = {}
        self._queue: deque[tuple[PlannedTrial, Record]] = deque()
        self._is_publishing = False

    @property
    def postponed(self) -> str | None:
        """The reasons for which publishing is deferred, one per line; None if there is none."""
        reasons = [tracker.postponed for tracker in self._trackers if tracker.postponed is not None]
        return "\n".join(reasons) or None

    def take_over(self) -> bool:
        """Start to publish unless another driver does; publish the records that are not published yet.

        Returns:
            Whether this driver publishes.
        """
        if not self._is_publishing and self._leases.claim(self._folder):
            self._is_publishing = True
            keys = {planned.key for planned in self._plan.trials}
            for tracker in self._trackers:
                tracker.start(self._grid, self._lab, keys)
            for planned in self._plan.all_trials:  # trials may have ended since the plan was made
                record = planned.record
                if record is not None:
                    self.publish(planned, record)
        return self._is_publishing

    def start_trial(self, planned: PlannedTrial) -> None:
        """Set the start of a trial to now, unless it is already known to run.

        Args:
            planned: the trial.
        """
        self._get_running(planned)

    def _get_running(self, planned: PlannedTrial) -> _Running:
        """Return the state of a running trial, created now if it is not known."""
        if planned.key not in self._running:
            axes = {axis: str(value) for axis, value in planned.cell.axes.items() if "." in axis}
            command = self._grid.command or reproduce_command(self._grid.path, planned.cell, planned.trial.seed)
            label, started = planned.cell.label, time.time()
            tracked = TrackedTrial(planned.trial, label, axes, command, planned.folder, started)
            self._running[planned.key] = _Running(tracked, time.monotonic())
        return self._running[planned.key]

    def log_progress(self, planned: PlannedTrial, epochs: Sequence[EpochRecord]) -> None:
        """Publish the curves of a running trial, at most once in LOG_INTERVAL seconds.

        Args:
            planned: the trial.
            epochs: its epochs so far.
        """
        # It is not known if its record was published by `take_over` before its end was seen.
        running = self._get_running(planned)
        if time.monotonic() - running.written >= LOG_INTERVAL:
            running.written = time.monotonic()
            for tracker in self._trackers:
                tracker.call_started(running.trial, lambda one: one.log_epochs(running.trial, epochs))

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
        """Publish a record to the trackers that do not have it: another driver may have published it.

        Args:
            planned: the ended trial.
            record: its record.
        """
        trial = self._get_running(planned).trial
        first = planned.trial.seed == min(self._grid.seeds)  # the report shows the images of this seed
        for tracker in self._trackers:
            if not tracker.is_published(record):
                tracker.call_started(trial, lambda one: one.log_record(trial, record, samples=first))
        self._running.pop(planned.key, None)

    def stop_trial(self, planned: PlannedTrial, epoch: int) -> None:
        """End a trial that early stopping has pruned.

        Args:
            planned: the trial.
            epoch: the epoch after which it was pruned.
        """
        self._pause(self._get_running(planned).trial, stopped_after=epoch)
        self._running.pop(planned.key, None)

    def _pause(self, trial: TrackedTrial, *, stopped_after: int | None) -> None:
        for tracker in self._trackers:
            tracker.call_started(trial, lambda one: one.pause_trial(trial, stopped_after=stopped_after))

    def close(self, *, complete: bool) -> None:
        """Publish the queued records, end the open trials and release the lease for publishing.

        Args:
            complete: whether all trials have ended. A trial that is paused ends in the trackers until it is resumed.
        """
        self.publish_queued()
        for running in self._running.values():
            self._pause(running.trial, stopped_after=None)
        for tracker in self._trackers:
            tracker.call(lambda one: one.close(complete=complete))
        self._leases.release(self._folder)


@dataclass
class _Running:
    """A running trial.

    Attributes:
        trial: the trial.
        written: time of the last write by the monotonic clock, in seconds.
    """

    trial: TrackedTrial
    written: float
