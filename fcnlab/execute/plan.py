"""The plan of a grid: which trials it has, which of them have ended, what is left."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from fcnlab.places import Lab
from fcnlab.spec.grid import Cell, Grid
from fcnlab.spec.trial import Trial
from fcnlab.trial.record import Record, RunFolder


@dataclass(frozen=True)
class Planned:
    """A trial of a grid, the cell that it belongs to, and its record if it has ended."""

    cell: Cell
    trial: Trial
    folder: RunFolder
    record: Record | None

    @property
    def state(self) -> str:
        """`finished`, `failed`, `started` (there are epochs or a checkpoint) or `to do`."""
        if self.record is not None:
            return self.record.status
        return "started" if self.folder.progress.exists() else "to do"


@dataclass(frozen=True)
class Plan:
    """All trials of a grid, in the order in which they run."""

    grid: Grid
    trials: tuple[Planned, ...]

    @property
    def left(self) -> list[Planned]:
        """What is still to be run."""
        return [planned for planned in self.trials if planned.record is None]

    @property
    def ended(self) -> Iterator[tuple[Planned, Record]]:
        """What has a record, finished or failed."""
        return ((planned, planned.record) for planned in self.trials if planned.record is not None)

    def count(self, state: str) -> int:
        """How many trials are in a state."""
        return sum(planned.state == state for planned in self.trials)


def make_plan(grid: Grid, lab: Lab) -> Plan:
    """Look up which trials have ended.

    Raises:
        DataError, ModelError: a dataset or a weights file that a trial needs is not there.
    """
    planned = []
    for cell, trial in grid.trials(lab.fingerprints):
        folder = RunFolder(lab.runs, trial.key)
        planned.append(Planned(cell, trial, folder, folder.read()))
    return Plan(grid, tuple(planned))
