"""Publishing of a grid's records to its trackers, by one driver at a time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from fcnlab.config.grid.grid import Grid
from fcnlab.errors import TrackingError
from fcnlab.file_lock import FileLock
from fcnlab.lab import Lab
from fcnlab.paths import exists
from fcnlab.runner.commands import reproduce_command
from fcnlab.runner.grid_state import SINGLE_TRIALS, publishing_folder, state_folder
from fcnlab.runner.lease import Leases
from fcnlab.runner.plan import Plan, PlannedTrial
from fcnlab.runner.progress.base import ProgressReporter
from fcnlab.runner.tracker_thread import Call, OpenTracker, TrackerThread
from fcnlab.runner.trackers import open_selected_tracker, track_grid
from fcnlab.tracking.base import TrackedTrial, Tracker
from fcnlab.tracking.lab_id import read_lab_id
from fcnlab.tracking.published_report import read_report_digest
from fcnlab.tracking.store import import_client, is_installed
from fcnlab.tracking.tracker import MlflowTracker
from fcnlab.tracking.view import format_runs_page
from fcnlab.trial.record import EpochRecord

T = TypeVar("T")

LOG_INTERVAL = 5.0
"""Seconds after which a running trial is created in a tracker, and between two updates of its curves.

A trial that ends sooner is written at once, which takes fewer requests.
"""

CLOSE_TIMEOUT = 300.0
"""Seconds that a driver waits at its end until everything is published."""

EXIT_TIMEOUT = 10.0
"""The same for an interrupted driver; clusters kill processes about 30 seconds after SIGTERM."""


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
    def remarks(self) -> Sequence[str]:
        """Remarks of the tracker for the user, one line per remark."""
        return self._tracker.remarks if self._tracker is not None else ()

    @property
    def has_pages(self) -> bool:
        """True if the store is a server with pages of runs, to which a report links."""
        return self._uses_mlflow and format_runs_page(self._lab.tracking_uri, "") != ""

    def has_report(self, digest: str) -> bool:
        """Return whether the grid's run is known to have a report, without opening the tracker.

        Args:
            digest: digest of the report.
        """
        if not self._uses_mlflow:
            return False
        return read_report_digest(self._lab.tracking_uri, self._grid.name, read_lab_id(self._lab.state)) == digest

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
    """Publishes records to the trackers, each in a thread, and defers it for a tracker that raises an error.

    One of several drivers of a grid holds the lease for publishing and publishes the records of all; when it exits,
    another driver takes over. Each record is therefore published once. No method but `close` waits for a tracker.
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
        self._reporter = reporter
        self._folder = publishing_folder(plan, lab)
        self._folder.mkdir(parents=True, exist_ok=True)
        self._trackers = [TrackerThread(name, partial(self._open, name), self._list_ended) for name in lab.trackers]
        self._running: dict[str, _Running] = {}
        self._reported: set[str] = set()
        self._remarks: dict[str, bool] = {}  # remarks of the trackers, and whether they are reported
        self._is_publishing = False

    @property
    def has_trackers(self) -> bool:
        """True if the lab selects a tracker."""
        return bool(self._trackers)

    @property
    def deferred(self) -> dict[str, str]:
        """The reasons for which publishing is deferred, by tracker."""
        return {tracker.name: tracker.error for tracker in self._trackers if tracker.error is not None}

    def take_over(self) -> bool:
        """Start to publish unless another driver does; publish the records that are not published yet.

        Returns:
            Whether this driver publishes.
        """
        if not self._is_publishing and self._leases.claim(self._folder):
            self._is_publishing = True
            if "mlflow" in self._lab.trackers and is_installed():
                import_client()  # not in the thread, while this one may import packages that it needs
            for tracker in self._trackers:
                tracker.start()
        return self._is_publishing

    def _open(self, name: str) -> Tracker:
        tracker = self._start_tracker(name)
        for remark in tracker.remarks:
            self._remarks.setdefault(remark, False)
        return tracker

    def _start_tracker(self, name: str) -> Tracker:
        keys = {planned.key for planned in self._plan.trials}
        if self._grid.name != SINGLE_TRIALS:
            return open_selected_tracker(name, self._grid, self._lab, keys)
        # Several drivers publish single trials at the same time: one of them at a time may create their experiment.
        with FileLock(state_folder(self._grid, self._lab) / "open.lock"):
            return open_selected_tracker(name, self._grid, self._lab, keys)

    def _list_ended(self) -> Iterator[Call]:
        """Yield the calls that publish the trials that have ended."""
        for planned in self._plan.all_trials:
            if exists(planned.folder.record):
                yield partial(self._publish, planned, self._describe(planned))

    def report(self) -> None:
        """Report the trackers for which publishing is deferred now, those that publish again, and their remarks."""
        for remark in [text for text, is_reported in list(self._remarks.items()) if not is_reported]:
            self._remarks[remark] = True
            self._reporter.on_remark(remark)
        deferred = self.deferred
        for name in deferred.keys() - self._reported:
            self._reporter.on_publishing_deferred(deferred[name])
        for name in self._reported - deferred.keys():
            self._reporter.on_remark(f"tracker {name}: publishing continues")
        self._reported = set(deferred)

    def start_trial(self, planned: PlannedTrial) -> None:
        """Set the start of a trial to now, unless it is already known to run.

        Args:
            planned: the trial.
        """
        self._get_running(planned)

    def _get_running(self, planned: PlannedTrial) -> _Running:
        """Return the state of a running trial, created now if it is not known or was started again, by any driver."""
        running = self._running.get(planned.key)
        if running is None or running.trial.restarts != _count_restarts(planned):
            running = self._running[planned.key] = _Running(self._describe(planned), time.monotonic())
        return running

    def _describe(self, planned: PlannedTrial) -> TrackedTrial:
        axes = {axis: str(value) for axis, value in planned.cell.axes.items() if "." in axis}
        command = self._grid.command or reproduce_command(self._grid.path, planned.cell, planned.trial.seed)
        restarts = _count_restarts(planned)
        return TrackedTrial(
            planned.trial, planned.cell.label, planned.description, axes, command, planned.folder, time.time(), restarts
        )

    def log_progress(self, planned: PlannedTrial, epochs: Sequence[EpochRecord]) -> None:
        """Publish the curves of a running trial, at most once in LOG_INTERVAL seconds.

        Args:
            planned: the trial.
            epochs: its epochs so far.
        """
        running = self._get_running(planned)
        if time.monotonic() - running.written >= LOG_INTERVAL:
            running.written = time.monotonic()
            for tracker in self._trackers:
                tracker.call(partial(_log_epochs, running.trial, epochs), key=planned.key)

    def publish(self, planned: PlannedTrial) -> None:
        """Publish the record of a trial to the trackers that do not have it: another driver may have published it.

        Args:
            planned: the ended trial.
        """
        trial = self._get_running(planned).trial
        for tracker in self._trackers:
            tracker.call(partial(self._publish, planned, trial))
        self._running.pop(planned.key, None)

    def _publish(self, planned: PlannedTrial, trial: TrackedTrial, opened: OpenTracker) -> None:
        record = planned.record
        if record is not None and not opened.tracker.is_published(record):
            # The report shows the images of the first seed.
            opened.start(trial).log_record(trial, record, samples=planned.trial.seed == min(self._grid.seeds))

    def leave_trial(self, planned: PlannedTrial) -> None:
        """Stop to publish a trial that another driver has taken over.

        Args:
            planned: the trial.
        """
        self._running.pop(planned.key, None)

    def prune_trial(self, planned: PlannedTrial, epoch: int) -> None:
        """End a trial that early stopping has pruned.

        Args:
            planned: the trial.
            epoch: the epoch after which it was pruned.
        """
        self._pause(self._get_running(planned).trial, epoch)
        self._running.pop(planned.key, None)

    def _pause(self, trial: TrackedTrial, pruned_after: int | None) -> None:
        def pause(opened: OpenTracker) -> None:
            if not exists(trial.folder.record):  # else it has ended, and is published with its record
                opened.start(trial).pause_trial(trial, pruned_after=pruned_after)

        for tracker in self._trackers:
            tracker.call(pause)

    def close(self, *, complete: bool, timeout: float | None = CLOSE_TIMEOUT, exiting: bool = False) -> None:
        """Wait until everything is published, end the open trials and release the lease for publishing.

        Args:
            complete: whether all trials have ended. A trial that is paused ends in the trackers until it is resumed.
            timeout: seconds after which publishing is deferred; None for no limit.
            exiting: whether this process is about to exit, so that a call of a tracker may be left.
        """
        for running in self._running.values():
            self._pause(running.trial, None)
        for tracker in self._trackers:
            tracker.end(lambda opened: opened.tracker.close(complete=complete))
        deadline = time.monotonic() + timeout if timeout is not None else None
        for tracker in self._trackers:
            left = max(0.0, deadline - time.monotonic()) if deadline is not None else None
            tracker.join(left, abandon=exiting)
        self.report()
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


def _log_epochs(trial: TrackedTrial, epochs: Sequence[EpochRecord], opened: OpenTracker) -> None:
    if not exists(trial.folder.record):  # else it is published with its record, perhaps already
        opened.start(trial).log_epochs(trial, epochs)


def _count_restarts(planned: PlannedTrial) -> int:
    """Return how often a trial was started again from its first epoch; other attempts resume from a checkpoint."""
    return sum(attempt.cause == "out_of_memory" for attempt in planned.folder.attempts())
