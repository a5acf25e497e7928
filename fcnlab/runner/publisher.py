"""Publication of a grid's records to its book, by one driver at a time."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fcnlab.config.grid.grid import Grid
from fcnlab.errors import TrackingError
from fcnlab.lab import Lab
from fcnlab.runner.lease import Leases
from fcnlab.runner.plan import Plan, PlannedTrial
from fcnlab.runner.progress.base import ProgressReporter
from fcnlab.tracking.store import is_installed
from fcnlab.tracking.tracker import MlflowTracker
from fcnlab.trial.record import EpochRecord, Record
from fcnlab.trial.run_folder import write_atomically

PERIOD = 5.0
"""Seconds after which a trial that runs is seen in the book, and between two writings of its curves.

Each request takes a store its time: of a trial that ends sooner, all is written at once.
"""


def open_tracker(grid: Grid, lab: Lab) -> MlflowTracker:
    """The book of a grid. Raises TrackingError where MLflow is not installed or the store is out of reach."""
    return MlflowTracker(lab.tracking_uri, grid.name, Path(lab.root) / "mlartifacts")


def open_if_installed(grid: Grid, lab: Lab) -> MlflowTracker | None:
    """Return the tracker of a grid; None where MLflow is not installed, and runs/ has all that can be reported.

    Raises:
        TrackingError: the store is out of reach.
    """
    return open_tracker(grid, lab) if is_installed() else None


def note_experiment(grid: Grid, lab: Lab, experiment: str) -> None:
    """Note which experiment of the store is a grid's, for those who want its address without asking the store."""
    write_atomically(_note(lab, grid.name), lambda file: file.write(f"{lab.tracking_uri}\n{experiment}\n".encode()))


def noted_experiments(lab: Lab) -> dict[str, str]:
    """The experiments of the lab's store by the names of their grids, as far as they were run from this lab."""
    notes = {file.parent.name: file.read_text(encoding="utf-8").splitlines() for file in lab.state.glob("*/experiment")}
    return {name: lines[1] for name, lines in sorted(notes.items()) if lines[0] == lab.tracking_uri}


def _note(lab: Lab, grid: str) -> Path:
    return lab.state / grid / "experiment"


class Publisher:
    """Writes to the book, and puts it off where the store is out of reach: nothing stops and nothing is lost.

    Of several drivers of a grid one holds the lease of its book and publishes what all of them run; when it leaves,
    another takes over. So a record is published once.
    """

    def __init__(self, plan: Plan, lab: Lab, leases: Leases, reporter: ProgressReporter) -> None:
        self.postponed: str | None = None
        self._plan = plan
        self._grid = plan.grid
        self._lab = lab
        self._leases = leases
        self._reporter = reporter
        self._folder = lab.state / plan.grid.name
        self._folder.mkdir(parents=True, exist_ok=True)
        self._tracker: MlflowTracker | None = None
        self._parent = ""
        self._running: dict[str, _Running] = {}
        self._ended: deque[tuple[PlannedTrial, Record]] = deque()
        self._publishes = False

    def take_over(self) -> bool:
        """Become the one who publishes, if no other driver does; what the book lacks is published at once."""
        if not self._publishes and self._leases.claim(self._folder):
            self._publishes = True
            if not is_installed():
                file = self._grid.path
                remedy = f"; run `fcnlab grid sync {file}` where it is" if file.is_file() else ""
                self._postpone(f"MLflow is not installed{remedy}")
                return True
            with self._trying():
                self._tracker = open_tracker(self._grid, self._lab)
                self._parent = self._tracker.get_grid_run(self._grid.file.question)
                self._tracker.update_view({planned.key for planned in self._plan.trials})
                note_experiment(self._grid, self._lab, self._tracker.experiment_id)
            for planned in self._plan.all_trials:  # more of them may have ended since the plan was made
                record = planned.record
                if record is not None:
                    self.publish(planned, record)
        return self._publishes

    @contextmanager
    def _trying(self) -> Iterator[None]:
        try:
            yield
        except TrackingError as error:
            self._tracker = None
            self._postpone(str(error))

    def _postpone(self, why: str) -> None:
        """Defer publishing, and report that once."""
        if self.postponed is None:
            self.postponed = why
            self._reporter.postponed(why)

    def begin(self, planned: PlannedTrial) -> None:
        """Note that a trial runs from now on, also if it did before."""
        self._known(planned)

    def _known(self, planned: PlannedTrial) -> _Running:
        """What is known of a trial that runs: since now, if nothing was."""
        return self._running.setdefault(planned.key, _Running(planned, time.time(), time.monotonic()))

    def follow(self, planned: PlannedTrial, epochs: Sequence[EpochRecord]) -> None:
        """Show a trial that runs, and its curves so far, now and then."""
        running = self._known(planned)  # it may have ended, and been published as this driver took over, unseen so far
        if time.monotonic() - running.written >= PERIOD:
            running.written = time.monotonic()
            with self._trying():
                if self._tracker is not None:
                    self._open_run(self._tracker, planned)
                    self._tracker.log_epochs(planned.key, epochs)

    def _open_run(self, tracker: MlflowTracker, planned: PlannedTrial) -> str:
        """The id of the run of a trial that is to be written to."""
        running = self._known(planned)
        if running.run is None:
            axes = {axis: str(value) for axis, value in planned.cell.axes.items() if "." in axis}
            running.run = tracker.create_run(planned.trial, planned.cell.label, axes, self._parent, running.since)
        return running.run

    def ended(self, planned: PlannedTrial, record: Record) -> None:
        """Note that a trial has a record, which is published by `catch_up`: first its place is to be filled."""
        self._ended.append((planned, record))

    def catch_up(self) -> None:
        """Publish the records that have been noted."""
        while self._ended:
            self.publish(*self._ended.popleft())

    def publish(self, planned: PlannedTrial, record: Record) -> None:
        """Write a record, unless the book has it: another driver may have run the trial and published it."""
        if self._tracker is not None and not self._tracker.is_published(record):
            with self._trying():
                self._open_run(self._tracker, planned)
                first = planned.trial.seed == min(self._grid.seeds)  # whose pictures a report shows
                self._tracker.log_record(record, planned.folder, self._grid.file.checkpoint, samples=first)
        self._running.pop(planned.key, None)

    def stopped(self, planned: PlannedTrial, epoch: int) -> None:
        """Say that the grid has stopped a trial after an epoch."""
        with self._trying():
            if self._tracker is not None:
                self._end_early(self._tracker, planned, stopped=epoch)
        self._running.pop(planned.key, None)

    def _end_early(self, tracker: MlflowTracker, planned: PlannedTrial, *, stopped: int | None = None) -> None:
        run = self._open_run(tracker, planned)
        tracker.log_epochs(planned.key, planned.folder.read_progress())
        tracker.finish_run(run, "KILLED", stopped_after=stopped)

    def close(self, *, complete: bool) -> None:
        """Say how it stands, and let another driver publish: a trial that is paused is KILLED until taken up again."""
        self.catch_up()
        with self._trying():
            if self._tracker is not None:
                for running in list(self._running.values()):
                    self._end_early(self._tracker, running.planned)
                self._tracker.finish_run(self._parent, "FINISHED" if complete else "KILLED")
        self._leases.release(self._folder)


@dataclass
class _Running:
    """A trial that runs since a time, in seconds since 1970; its run, and when that was last looked at."""

    planned: PlannedTrial
    since: float
    written: float
    run: str | None = None
