"""The plan of a grid: its trials, how far each of them is, and which remain to be run."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Literal, get_args

from fcnlab.atomic_file import read_shared
from fcnlab.config.grid.checks import SHOWN
from fcnlab.config.grid.grid import Cell, Grid
from fcnlab.config.trial import Trial
from fcnlab.constants import KEY_DIGITS
from fcnlab.errors import ConfigError, ModelError
from fcnlab.lab import Lab
from fcnlab.paths import exists, is_folder, read_time
from fcnlab.runner.inputs import GridInputs, find_inputs
from fcnlab.runner.pruning import Curve, prune_grid, read_curve
from fcnlab.trial.record import Record
from fcnlab.trial.run_folder import RunFolder
from fcnlab.trial.storage.damage import DamageError, KeptError
from fcnlab.trial.storage.quarantine import list_keys

Status = Literal["finished", "failed", "started", "to do", "damaged"]
"""Progress of a trial: it has a record of either status, or at least one epoch, or nothing, or damaged files."""

State = Literal["finished", "failed", "pruned", "started", "damaged", "to do"]
"""The status, or `pruned` for a trial that early stopping has pruned."""


@dataclass(frozen=True)
class PlannedTrial:
    """A trial of a grid.

    Attributes:
        cell: the cell of the trial.
        cell_name: the display name of the cell, as in the report.
        trial: the configuration and the seed.
        key: the key of the trial.
        runs: the folder that contains the run folders.
        status: progress of the trial when the plan was made.
        pruned_after: the epoch after which early stopping has pruned the trial in this grid; None if it has not.
    """

    cell: Cell
    cell_name: str
    trial: Trial
    key: str
    runs: Path
    status: Status
    pruned_after: int | None = None

    @property
    def state(self) -> State:
        """The status, or `pruned` for a pruned trial."""
        return "pruned" if self.pruned_after is not None else self.status

    @property
    def folder(self) -> RunFolder:
        """The run folder of the trial."""
        return RunFolder(self.runs, self.key)

    @property
    def record(self) -> Record | None:
        """The current record, read from disk on each access: the records of a large grid would fill the memory."""
        return self.folder.read()

    @property
    def damage(self) -> str | None:
        """The damaged file and its problem; None if there is none."""
        damage = self.folder.inspect()[1]
        return _describe(self, damage) if damage is not None else None

    @property
    def short_key(self) -> str:
        """The beginning of the key, as tables and messages show it."""
        return self.key[:KEY_DIGITS]

    @property
    def description(self) -> str:
        """The cell and the seed, such as `fcn8s, seed 0`."""
        return f"{self.cell_name}, seed {self.trial.seed}"


def _describe(planned: PlannedTrial, damage: DamageError) -> str:
    return f"{planned.folder.path / damage.file}: {damage.problem}"


@dataclass(frozen=True)
class Plan:
    """All trials of a grid, in the order in which they run.

    Attributes:
        grid: the grid.
        trials: the trials of the grid's cells.
        prerequisites: trials that belong to no cell, but that other trials are initialized from (`init_from`).
        missing_inputs: one line about datasets and weights files that are missing, if the fingerprints that earlier
            trials have recorded replace theirs; None if there are none.
    """

    grid: Grid
    trials: tuple[PlannedTrial, ...]
    prerequisites: tuple[PlannedTrial, ...] = ()
    missing_inputs: str | None = None

    @property
    def all_trials(self) -> tuple[PlannedTrial, ...]:
        """The prerequisites, then the trials of the cells."""
        return (*self.prerequisites, *self.trials)

    @property
    def remaining(self) -> list[PlannedTrial]:
        """The trials that have neither ended nor been pruned, and those with damaged files."""
        return [planned for planned in self.all_trials if planned.state in ("started", "to do", "damaged")]

    @property
    def damages(self) -> list[str]:
        """One line per trial with damaged files, or with files that cannot be used but may be intact and are kept."""
        damaged = [planned for planned in self.all_trials if planned.state == "damaged"]
        return [
            f"{'unusable' if isinstance(damage, KeptError) else 'damaged'}: {planned.description}: "
            + _describe(planned, damage)
            for planned in damaged
            if (damage := planned.folder.inspect()[1]) is not None  # a driver may have repaired it
        ]

    def records(self) -> Iterator[tuple[PlannedTrial, Record]]:
        """Yield the trials that had ended when the plan was made, each with its record."""
        for planned in self.all_trials:
            if planned.status in ("finished", "failed") and (record := planned.record) is not None:
                yield planned, record

    @property
    def states(self) -> dict[str, State]:
        """The state of each trial by its key."""
        return {planned.key: planned.state for planned in self.all_trials}

    def counts(self) -> dict[State, int]:
        """Return the number of trials in each state."""
        counts = Counter(planned.state for planned in self.all_trials)
        return {state: counts[state] for state in get_args(State)}


def make_plan(grid: Grid, lab: Lab, *, recorded_inputs: bool = False) -> Plan:
    """Make the plan of a grid from the records in a lab.

    Args:
        grid: the grid.
        lab: the lab that contains the run folders and the data.
        recorded_inputs: identify the trials of a missing dataset or weights file by the fingerprint that an earlier
            trial has recorded. For commands that only read results.

    Raises:
        ConfigError: two cells have a trial in common.
        DataError: a dataset is missing, and no fingerprint replaces that of its files.
        ModelError: a weights file, or a finished trial that another is initialized from, is missing.
    """
    inputs = find_inputs(grid, lab, recorded=recorded_inputs)
    index = RunIndex(grid, lab, inputs)
    own = [index.plan_cell(cell, grid.seeds) for cell in grid.cells]
    _check_distinct(grid, own)
    needed = [index.plan_prerequisites(cell, grid.seeds) for cell in grid.cells]
    # Seed by seed, so that every cell has its first result early.
    trials = {planned.key: planned for row in zip(*own, strict=True) for planned in row}
    before = {planned.key: planned for row in zip(*needed, strict=True) for planned in chain.from_iterable(row)}
    prerequisites = tuple(planned for key, planned in before.items() if key not in trials)
    marked = _mark_pruned(grid, list(trials.values()))
    return Plan(grid, tuple(marked), prerequisites, inputs.describe_missing())


def _check_distinct(grid: Grid, trials: Sequence[Sequence[PlannedTrial]]) -> None:
    """Check that no two cells have a trial in common, such as those of two copies of a dataset."""
    first: dict[str, Cell] = {}
    pairs: dict[tuple[str, str], None] = {}
    for planned in chain.from_iterable(trials):
        earlier = first.setdefault(planned.key, planned.cell)
        if earlier is not planned.cell:
            pairs[earlier.label, planned.cell.label] = None
    lines = [
        f"{grid.path}: the cells '{first_label}' and '{label}' have trials in common (same data, weights and "
        "configuration); remove one"
        for first_label, label in pairs
    ]
    if lines:
        more = [f"{grid.path}: {len(lines) - SHOWN} more cells are duplicates"] if len(lines) > SHOWN else []
        raise ConfigError("\n".join([*lines[:SHOWN], *more]))


def check_plan_weights(plan: Plan, lab: Lab) -> list[str]:
    """Check that the local weights files of the remaining trials fit their backbones.

    Args:
        plan: the plan.
        lab: the lab with the files.

    Returns:
        One line for each file with other names than the network's.

    Raises:
        ModelError: a file is missing, cannot be read or does not fit.
    """
    trials = [planned.trial for planned in plan.remaining if planned.trial.variant.backbone.weights_file is not None]
    if not trials:
        return []
    from fcnlab.trial.weights_check import check_weights  # imports torch

    return check_weights(trials, lab)


def count_reported(plan: Plan, lab: Lab) -> Counter[str]:
    """Count the finished trials of a plan in each report of a lab: a record does not name a grid.

    Args:
        plan: the plan.
        lab: the lab that contains `results/`.

    Returns:
        The number of trials by the name of the grid; grids with none are left out.
    """
    finished = {planned.key for planned in plan.all_trials if planned.status == "finished"}
    counts: Counter[str] = Counter()
    for file in sorted(lab.results.glob("**/provenance.json")) if finished else ():
        counts[file.parent.relative_to(lab.results).as_posix()] = len(finished & read_reported_trials(file).keys())
    return +counts


def read_reported_trials(file: Path) -> dict[str, str]:
    """Read the trials of a written report.

    Args:
        file: the `provenance.json` of the report.

    Returns:
        The status of each trial by its key, empty where it is not given; no trials if the file does not exist, cannot
        be read, or is not one of fcnlab.
    """
    with suppress(OSError, ValueError, KeyError, TypeError):
        trials = json.loads(read_shared(file))["trials"]
        return {trial["key"]: trial.get("status", "") for trial in trials}
    return {}


def list_other_folders(plan: Plan, lab: Lab, most: int) -> list[RunFolder]:
    """Return the run folders of a lab that are not of the plan, the latest first.

    Args:
        plan: the plan.
        lab: the lab that contains `runs/`.
        most: maximum number of folders.
    """
    planned_keys = {planned.key for planned in plan.all_trials}
    others = [lab.runs / key for key in list_keys(lab.runs) if key not in planned_keys]
    latest = sorted(filter(is_folder, others), key=read_time, reverse=True)
    return [RunFolder(lab.runs, path.name) for path in latest[:most]]


class RunIndex:
    """An index of a lab's `runs/`, which is listed once: most trials of a new grid have no folder there."""

    def __init__(self, grid: Grid, lab: Lab, inputs: GridInputs) -> None:
        self._grid = grid
        self._lab = lab
        self._inputs = inputs
        self._keys = set(list_keys(lab.runs))
        self._checked: set[str] = set()

    def plan_cell(self, cell: Cell, seeds: Sequence[int]) -> list[PlannedTrial]:
        """Return the trials of a cell, one per seed.

        Args:
            cell: the cell.
            seeds: the seeds.
        """
        name = self._grid.display_name(cell.label)
        trials = cell.trials(seeds, self._inputs.fingerprints)
        keyed = [(trial, trial.key) for trial in trials]
        return [PlannedTrial(cell, name, trial, key, self._lab.runs, self._read_status(key)) for trial, key in keyed]

    def plan_prerequisites(self, cell: Cell, seeds: Sequence[int]) -> list[tuple[PlannedTrial, ...]]:
        """Return, for each seed, the chain of trials that the cell's trial is initialized from, the earliest first.

        Args:
            cell: the cell.
            seeds: the seeds.

        Raises:
            ModelError: `init_from` is the key of a trial that has not finished.
        """
        if isinstance(cell.init_from, str):
            self._require_finished(cell.init_from)
        if not isinstance(cell.init_from, Cell):
            return [()] * len(seeds)
        earlier = self.plan_prerequisites(cell.init_from, seeds)
        nearest = self.plan_cell(cell.init_from, seeds)
        return [(*before, planned) for before, planned in zip(earlier, nearest, strict=True)]

    def _read_status(self, key: str) -> Status:
        if key not in self._keys:
            return "to do"
        folder = RunFolder(self._lab.runs, key)
        record, damage = folder.inspect()
        if damage is not None:
            return "damaged"
        if record is not None:
            return record.status
        return "started" if exists(folder.progress) else "to do"

    def _require_finished(self, key: str) -> None:
        if key in self._checked:
            return
        runs = self._lab.find_runs(key)
        record = RunFolder(runs, key).read()
        if record is None or record.status != "finished":
            raise ModelError(f"init_from: {runs} has no finished trial {key}; give the key of a finished trial")
        self._checked.add(key)


def _mark_pruned(grid: Grid, trials: list[PlannedTrial]) -> list[PlannedTrial]:
    """Set `pruned_after` of the trials that early stopping prunes."""
    if grid.file.early_stopping is None:
        return trials
    curves: dict[str, list[Curve]] = {}
    for planned in trials:
        curve = Curve() if planned.status == "to do" else read_curve(planned.folder, planned.record)
        curves.setdefault(planned.cell.label, []).append(curve)
    pruned = {cell: epoch for one in prune_grid(grid, curves).values() for cell, epoch in one.pruned.items()}
    return [replace(planned, pruned_after=pruned.get(planned.cell.label)) for planned in trials]
