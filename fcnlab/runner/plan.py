"""The plan of a grid: which trials it has, which of them have ended, what is left."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from fcnlab.config.grid.grid import Cell, Grid
from fcnlab.config.trial import Trial
from fcnlab.errors import ModelError
from fcnlab.lab import Lab
from fcnlab.runner.pruning import Curve, curve_of, standing
from fcnlab.trial.record import Record
from fcnlab.trial.run_folder import RunFolder

Status = Literal["finished", "failed", "started", "to do"]
"""Of a trial: whether it has a record and which, or has epochs already, or nothing."""


@dataclass(frozen=True)
class Planned:
    """A trial of a grid and the cell that it belongs to, with its key and how far it was when the plan was made.

    Its record is read when it is asked for: those of a large grid would fill the memory. `stopped` is the epoch after
    which the grid's `stop` has stopped it; another grid may run it to its end.
    """

    cell: Cell
    trial: Trial
    key: str
    runs: Path
    status: Status
    stopped: int | None = None

    @property
    def state(self) -> Status | Literal["stopped"]:
        """The status, or `stopped`."""
        return "stopped" if self.stopped is not None else self.status

    @property
    def folder(self) -> RunFolder:
        """Where all is that the trial has produced."""
        return RunFolder(self.runs, self.key)

    @property
    def record(self) -> Record | None:
        """The record as it is now, if there is one."""
        return self.folder.read()


@dataclass(frozen=True)
class Plan:
    """All trials of a grid, in the order in which they run.

    `trials` are those of its cells; `before` are no cells of it, but some of its trials start from them.
    """

    grid: Grid
    trials: tuple[Planned, ...]
    before: tuple[Planned, ...] = ()

    @property
    def everything(self) -> tuple[Planned, ...]:
        """All that is to be run; what others start from comes first."""
        return (*self.before, *self.trials)

    @property
    def left(self) -> list[Planned]:
        """What is still to be run."""
        return [planned for planned in self.everything if planned.state in ("started", "to do")]

    @property
    def ended(self) -> Iterator[tuple[Planned, Record]]:
        """What has a record, finished or failed."""
        with_record = (planned for planned in self.everything if planned.status in ("finished", "failed"))
        return ((planned, record) for planned in with_record if (record := planned.record) is not None)

    def count(self, state: str) -> int:
        """How many trials are in a state."""
        return sum(planned.state == state for planned in self.everything)


def make_plan(grid: Grid, lab: Lab) -> Plan:
    """Look up which trials have ended.

    Raises:
        DataError, ModelError: a dataset, a weights file or a finished trial that a trial needs is not there.
    """
    desk = _Desk(lab)
    own = [desk.planned(cell, grid.seeds) for cell in grid.cells]
    needed = [desk.before(cell, grid.seeds) for cell in grid.cells]
    trials = {planned.key: planned for row in zip(*own, strict=True) for planned in row}
    before = {planned.key: planned for row in zip(*needed, strict=True) for chain in row for planned in chain}
    first = tuple(planned for key, planned in before.items() if key not in trials)
    return Plan(grid, tuple(_stopped(grid, list(trials.values()))), first)


class _Desk:
    """Knows what lies in a lab's runs/, which is listed once: most trials of a new grid have no folder there."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._there = {path.name for path in lab.runs.iterdir()} if lab.runs.is_dir() else set()
        self._checked: set[str] = set()

    def planned(self, cell: Cell, seeds: Sequence[int]) -> list[Planned]:
        """A cell's trials, one for each seed."""
        trials = cell.trials(seeds, self._lab.fingerprints)
        keyed = [(trial, trial.key) for trial in trials]
        return [Planned(cell, trial, key, self._lab.runs, self._status(key)) for trial, key in keyed]

    def before(self, cell: Cell, seeds: Sequence[int]) -> list[tuple[Planned, ...]]:
        """For each seed what the cell's trial starts from, what that starts from before it."""
        if isinstance(cell.init_from, str):
            self._check_finished(cell.init_from)
        if not isinstance(cell.init_from, Cell):
            return [()] * len(seeds)
        earlier = self.before(cell.init_from, seeds)
        nearest = self.planned(cell.init_from, seeds)
        return [(*chain, planned) for chain, planned in zip(earlier, nearest, strict=True)]

    def _status(self, key: str) -> Status:
        if key not in self._there:
            return "to do"
        folder = RunFolder(self._lab.runs, key)
        record = folder.read()
        if record is not None:
            return record.status
        return "started" if folder.progress.exists() else "to do"

    def _check_finished(self, key: str) -> None:
        if key not in self._checked and self._status(key) != "finished":
            raise ModelError(
                f"init_from: {self._lab.runs} has no finished trial {key}; give the key of one that has ended"
            )
        self._checked.add(key)


def _stopped(grid: Grid, trials: list[Planned]) -> list[Planned]:
    """The trials, with those marked that the grid's `stop` has stopped."""
    if grid.file.early_stopping is None:
        return trials
    curves: dict[str, list[Curve | None]] = {}
    for planned in trials:
        curve = [] if planned.status == "to do" else curve_of(planned.folder, planned.record)
        curves.setdefault(planned.cell.label, []).append(curve)
    stopped = standing(grid.file.early_stopping, curves, grid.baseline.label).stopped
    return [replace(planned, stopped=stopped.get(planned.cell.label)) for planned in trials]
