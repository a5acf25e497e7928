"""Publication of a grid's records to its book, by one driver at a time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fcnlab.errors import TrackingError
from fcnlab.execute.lease import Leases
from fcnlab.execute.plan import Plan, Planned
from fcnlab.execute.watch import Watcher
from fcnlab.places import Lab
from fcnlab.spec.grid import Grid
from fcnlab.tracking import Book
from fcnlab.trial.record import EpochRecord, Record, write_whole

CURVES = 5.0
"""Seconds between two writings of a trial's curves; at its end it has all of them."""


def open_book(grid: Grid, lab: Lab) -> Book:
    """The book of a grid. Raises TrackingError where the store is out of reach."""
    return Book(lab.tracking_uri, grid.name, Path(lab.root) / "mlartifacts")


def note_experiment(grid: Grid, lab: Lab, experiment: str) -> None:
    """Note which experiment of the store is a grid's, for those who want its address without asking the store."""
    write_whole(_note(lab, grid.name), lambda file: file.write(f"{lab.tracking_uri}\n{experiment}\n".encode()))


def noted_experiments(lab: Lab) -> dict[str, str]:
    """The experiments of the lab's store by the names of their grids, as far as they were run from this lab."""
    notes = {file.parent.name: file.read_text(encoding="utf-8").splitlines() for file in lab.notes.glob("*/experiment")}
    return {name: lines[1] for name, lines in sorted(notes.items()) if lines[0] == lab.tracking_uri}


def _note(lab: Lab, grid: str) -> Path:
    return lab.notes / grid / "experiment"


class Publisher:
    """Writes to the book, and puts it off where the store is out of reach: nothing stops and nothing is lost.

    Of several drivers of a grid one holds the lease of its book and publishes what all of them run; when it leaves,
    another takes over. So a record is published once.
    """

    def __init__(self, plan: Plan, lab: Lab, leases: Leases, watcher: Watcher) -> None:
        self.postponed: str | None = None
        self._plan = plan
        self._grid = plan.grid
        self._lab = lab
        self._leases = leases
        self._watcher = watcher
        self._folder = lab.notes / plan.grid.name
        self._folder.mkdir(parents=True, exist_ok=True)
        self._book: Book | None = None
        self._parent = ""
        self._runs: dict[str, str] = {}
        self._written: dict[str, float] = {}  # when a run was last written to
        self._publishes = False

    def take_over(self) -> bool:
        """Become the one who publishes, if no other driver does; what the book lacks is published at once."""
        if not self._publishes and self._leases.claim(self._folder):
            self._publishes = True
            with self._trying():
                self._book = open_book(self._grid, self._lab)
                self._parent = self._book.parent(self._grid.file.question)
                self._book.show({planned.key for planned in self._plan.trials})
                note_experiment(self._grid, self._lab, self._book.experiment)
            for planned in self._plan.everything:  # more of them may have ended since the plan was made
                record = planned.record
                if record is not None:
                    self.publish(planned, record)
        return self._publishes

    @contextmanager
    def _trying(self) -> Iterator[None]:
        try:
            yield
        except TrackingError as error:
            self._book = None
            if self.postponed is None:
                self.postponed = str(error)
                self._watcher.postponed(str(error))

    def begin(self, planned: Planned) -> None:
        """Say that a trial runs."""
        with self._trying():
            if self._book is not None:
                axes = {axis: str(value) for axis, value in planned.cell.axes.items() if "." in axis}
                run = self._book.begin(planned.trial, planned.cell.label, axes, self._parent)
                self._runs[planned.key] = run
                self._written[planned.key] = time.monotonic()

    def epochs(self, planned: Planned, epochs: list[EpochRecord]) -> None:
        """Write the curves so far, now and then: each request takes a store its time."""
        if time.monotonic() - self._written.get(planned.key, 0.0) < CURVES:
            return
        with self._trying():
            if self._book is not None and planned.key in self._runs:
                self._book.log_epochs(planned.key, epochs)
                self._written[planned.key] = time.monotonic()

    def publish(self, planned: Planned, record: Record) -> None:
        """Write a record, unless the book has it: another driver may have run the trial and published it."""
        if self._book is None or self._book.is_published(record):
            return
        if planned.key not in self._runs:
            self.begin(planned)
        with self._trying():
            if self._book is not None:
                self._book.publish(record, planned.folder, self._grid.file.select)
                del self._runs[planned.key], self._written[planned.key]

    def stopped(self, planned: Planned, epoch: int) -> None:
        """Say that the grid has stopped a trial after an epoch."""
        self.begin(planned)
        with self._trying():
            if self._book is not None:
                self._book.log_epochs(planned.key, planned.folder.read_progress())
                self._book.end(self._runs.pop(planned.key), "KILLED", stopped=epoch)

    def close(self, *, complete: bool) -> None:
        """Say how it stands, and let another driver publish: a trial that is paused is KILLED until taken up again."""
        with self._trying():
            if self._book is not None:
                for run in self._runs.values():
                    self._book.end(run, "KILLED")
                self._book.end(self._parent, "FINISHED" if complete else "KILLED")
        self._leases.release(self._folder)
