"""The plan of a grid: which trials it has, which of them have ended, what is left."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from fcnlab.errors import ModelError
from fcnlab.execute.stopping import Curve, curve_of, standing
from fcnlab.places import Lab
from fcnlab.spec.grid import Cell, Grid
from fcnlab.spec.trial import Trial
from fcnlab.trial.record import Record, RunFolder


@dataclass(frozen=True)
class Planned:
    """A trial of a grid, the cell that it belongs to, and its record if it has ended.

    `stopped` is the epoch after which the grid's `stop` has stopped it; it has no record then, and another grid may
    run it to its end.
    """

    cell: Cell
    trial: Trial
    folder: RunFolder
    record: Record | None
    stopped: int | None = None

    @property
    def state(self) -> str:
        """`finished`, `failed`, `stopped`, `started` (there are epochs or a checkpoint) or `to do`."""
        if self.stopped is not None:
            return "stopped"
        if self.record is not None:
            return self.record.status
        return "started" if self.folder.progress.exists() else "to do"


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
        return [planned for planned in self.everything if planned.record is None and planned.stopped is None]

    @property
    def ended(self) -> Iterator[tuple[Planned, Record]]:
        """What has a record, finished or failed."""
        return ((planned, planned.record) for planned in self.everything if planned.record is not None)

    def count(self, state: str) -> int:
        """How many trials are in a state."""
        return sum(planned.state == state for planned in self.everything)


def make_plan(grid: Grid, lab: Lab) -> Plan:
    """Look up which trials have ended.

    Raises:
        DataError, ModelError: a dataset, a weights file or a finished trial that a trial needs is not there.
    """
    trials: dict[str, Planned] = {}
    starts: dict[str, Planned] = {}
    for cell, trial in grid.trials(lab.fingerprints):
        trials[trial.key] = _planned(cell, trial, lab)
        for ancestor in reversed(list(_ancestors(cell, trial.seed, lab))):
            starts.setdefault(ancestor.trial.key, ancestor)
    before = tuple(planned for key, planned in starts.items() if key not in trials)
    return Plan(grid, tuple(_stopped(grid, list(trials.values()))), before)


def _stopped(grid: Grid, trials: list[Planned]) -> list[Planned]:
    """The trials, with those marked that the grid's `stop` has stopped."""
    if grid.file.stop is None:
        return trials
    curves: dict[str, list[Curve | None]] = {}
    for planned in trials:
        curves.setdefault(planned.cell.label, []).append(curve_of(planned.folder, planned.record))
    stopped = standing(grid.file.stop, curves, grid.baseline.label).stopped
    return [replace(planned, stopped=stopped.get(planned.cell.label)) for planned in trials]


def _planned(cell: Cell, trial: Trial, lab: Lab) -> Planned:
    folder = RunFolder(lab.runs, trial.key)
    return Planned(cell, trial, folder, folder.read())


def _ancestors(cell: Cell, seed: int, lab: Lab) -> Iterator[Planned]:
    """What a cell's trial starts from, and what that starts from, nearest first."""
    while isinstance(cell.start, Cell):
        cell = cell.start
        yield _planned(cell, cell.trial(seed, lab.fingerprints), lab)
    if cell.start is not None:
        record = RunFolder(lab.runs, cell.start).read()
        if record is None or record.status != "finished":
            raise ModelError(
                f"start: {lab.runs} has no finished trial {cell.start}; give the key of one that has ended"
            )
