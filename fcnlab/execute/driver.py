"""Run a grid: plan, start what is left, watch it, publish each record, and make the report."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from fcnlab.data.cache_build import mapped
from fcnlab.errors import DataError, RunError, TrackingError
from fcnlab.execute.base import Ended, Executor
from fcnlab.execute.plan import Plan, Planned, make_plan
from fcnlab.execute.watch import Watcher
from fcnlab.places import Lab
from fcnlab.spec.grid import Grid
from fcnlab.tracking import Book
from fcnlab.trial.record import EpochRecord, Failure, Record, RunFolder

POLL = 0.25
"""Seconds between two looks at the trials that run."""

LIVES = 2
"""How often a trial is started whose process dies under it: once more than the first time."""


@dataclass(frozen=True)
class Outcome:
    """How a run of a grid went, in numbers of trials, and why its book waits if it does."""

    finished: int
    failed: int
    reused: int
    postponed: str | None = None

    @property
    def ok(self) -> bool:
        """Whether every trial has finished."""
        return self.failed == 0


def run(grid: Grid, lab: Lab, hire: Callable[[], Executor], watcher: Watcher) -> Outcome:
    """Run what is left of a grid and publish every record that is not in the book yet.

    `hire` makes the executor; it is not called when nothing is left to run.

    Raises:
        RunError: the grid is already being run from this lab, or the lab cannot be written.
        DataError, ModelError: something that a trial needs is not there.
    """
    with _alone(grid, lab):
        plan = make_plan(grid, lab)
        for planned in plan.left:  # before anything is started or published: this is where a full disk shows
            planned.folder.make()
        publisher = Publisher(plan, lab, watcher)
        publisher.publish_ended()
        watcher.planned(plan)
        try:
            if plan.left:
                _decode(plan, lab, watcher)
                with hire() as executor:
                    _work_off(plan, lab, executor, publisher, watcher)
        finally:
            publisher.close()
    after = make_plan(grid, lab)
    finished, failed = after.count("finished"), after.count("failed")
    return Outcome(finished, failed, len(plan.everything) - len(plan.left), publisher.postponed)


def sync(grid: Grid, lab: Lab, watcher: Watcher) -> Outcome:
    """Publish what the book lacks, and run nothing. Raises as `run` does."""
    with _alone(grid, lab):
        plan = make_plan(grid, lab)
        publisher = Publisher(plan, lab, watcher)
        publisher.publish_ended()
        publisher.close()
    ended = len(plan.everything) - len(plan.left)
    return Outcome(plan.count("finished"), plan.count("failed"), ended, publisher.postponed)


def forget_failed(grid: Grid, lab: Lab) -> int:
    """Set the failed records of a grid aside, so that the next run runs those trials again; returns how many."""
    with _alone(grid, lab):
        failed = [planned for planned, record in make_plan(grid, lab).ended if record.status == "failed"]
        for planned in failed:
            planned.folder.set_aside()
    return len(failed)


@contextmanager
def _alone(grid: Grid, lab: Lab) -> Iterator[None]:
    """Hold the grid, so that no second driver runs it from this lab; the kernel lets go when a driver dies."""
    folder = lab.root / ".fcnlab"
    lock = FileLock(folder / f"{grid.name}.lock")
    try:
        folder.mkdir(exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        raise RunError(
            f"the grid {grid.name} is already being run in {lab.root}; watch it with "
            f"`fcnlab grid status {grid.path}`, or wait until it is done"
        ) from None
    except OSError as error:
        raise RunError(
            f"{folder}: cannot be written ({error.strerror}); choose another lab folder with --lab"
        ) from None
    try:
        yield
    finally:
        lock.release()


def _decode(plan: Plan, lab: Lab, watcher: Watcher) -> None:
    """Decode what the trials will read, once and on all cores, before they ask for it all at the same moment."""
    needed = {(repr(one.trial.dataset), split) for one in plan.left for split in one.trial.dataset.used_splits}
    datasets = {repr(one.trial.dataset): one.trial.dataset for one in plan.left}
    for spec, split in sorted(needed):
        # A faulty file is what the trials that read it have to say; others of the grid may well run.
        with suppress(DataError):
            mapped(lab.dataset(datasets[spec]), split, watcher.decoding)


class _Waiting:
    """What is left to start, in order; a trial that starts from another waits until that one has ended."""

    def __init__(self, plan: Plan, lab: Lab) -> None:
        self._waiting = deque(plan.left)
        self._lab = lab

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def take(self) -> Planned | None:
        """The next trial that can be started, if there is one."""
        for planned in self._waiting:
            if planned.trial.start is None or RunFolder(self._lab.runs, planned.trial.start).read() is not None:
                self._waiting.remove(planned)
                return planned
        return None

    def again(self, planned: Planned) -> None:
        """Put a trial back, before all others."""
        self._waiting.appendleft(planned)


def _work_off(plan: Plan, lab: Lab, executor: Executor, publisher: Publisher, watcher: Watcher) -> None:
    waiting = _Waiting(plan, lab)
    running: dict[str, Planned] = {}
    deaths: dict[str, int] = {}
    while waiting or running:
        while len(running) < executor.slots and (planned := waiting.take()) is not None:
            running[planned.trial.key] = planned
            executor.start(planned.trial)
            publisher.begin(planned)
            watcher.started(planned)
        if not running:
            raise RunError("what the next trial starts from is no longer there; run the grid again")
        for ended in executor.wait(POLL):
            planned = running.pop(ended.key)
            record = planned.folder.read()
            if record is None:
                deaths[ended.key] = deaths.get(ended.key, 0) + 1
                if deaths[ended.key] < LIVES:
                    watcher.lost(planned, ended.lost or "no record came")
                    waiting.again(planned)
                    continue
                record = _lost(planned, ended)
            publisher.publish(planned, record)
            watcher.ended(planned, record)
        for planned in running.values():
            epochs = planned.folder.read_progress()
            if watcher.progress(planned, epochs):
                publisher.epochs(planned, epochs)


def _lost(planned: Planned, ended: Ended) -> Record:
    """The record of a trial whose process died under it every time."""
    failure = Failure(cause="lost", message=f"{ended.lost or 'no record came'} ({LIVES} times)")
    record = Record.of(planned.trial, "failed", failure=failure)
    planned.folder.finish(record)
    return record


class Publisher:
    """Writes to the book, and puts it off where the store is out of reach: nothing stops and nothing is lost."""

    def __init__(self, plan: Plan, lab: Lab, watcher: Watcher) -> None:
        self.postponed: str | None = None
        self._plan = plan
        self._lab = lab
        self._watcher = watcher
        self._book: Book | None = None
        self._parent = ""
        self._runs: dict[str, str] = {}
        with self._trying():
            self._book = open_book(plan.grid, lab)
            self._parent = self._book.parent(plan.grid.file.question)

    @contextmanager
    def _trying(self) -> Iterator[None]:
        try:
            yield
        except TrackingError as error:
            self._book = None
            if self.postponed is None:
                self.postponed = str(error)
                self._watcher.postponed(str(error))

    def publish_ended(self) -> None:
        """Publish the records that are there and not in the book."""
        for planned, record in self._plan.ended:
            if self._book is not None and not self._book.is_published(record):
                self.publish(planned, record)

    def begin(self, planned: Planned) -> None:
        """Say that a trial runs."""
        with self._trying():
            if self._book is not None:
                axes = {axis: str(value) for axis, value in planned.cell.axes.items() if "." in axis}
                run = self._book.begin(planned.trial, planned.cell.label, axes, self._parent)
                self._runs[planned.trial.key] = run

    def epochs(self, planned: Planned, epochs: list[EpochRecord]) -> None:
        """Write the curves so far."""
        with self._trying():
            if self._book is not None:
                self._book.log_epochs(self._runs[planned.trial.key], epochs)

    def publish(self, planned: Planned, record: Record) -> None:
        """Write a record."""
        if planned.trial.key not in self._runs:
            self.begin(planned)
        with self._trying():
            if self._book is not None:
                run = self._runs.pop(planned.trial.key)
                self._book.publish(record, run, planned.folder, self._plan.grid.file.select)

    def close(self) -> None:
        """Say how it stands: a trial that was stopped is KILLED until it is taken up again."""
        with self._trying():
            if self._book is not None:
                for run in self._runs.values():
                    self._book.end(run, "KILLED")
                unfinished = make_plan(self._plan.grid, self._lab).left
                self._book.end(self._parent, "KILLED" if unfinished else "FINISHED")


def open_book(grid: Grid, lab: Lab) -> Book:
    """The book of a grid. Raises TrackingError where the store is out of reach."""
    return Book(lab.tracking_uri, grid.name, Path(lab.root) / "mlartifacts")
