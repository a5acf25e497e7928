"""Names of trials and cells: FILE:CELL, FILE:CELL:SEED, FILE:best, the beginning of a trial's key, or a run folder."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

from fcnlab.config.grid.grid import Cell
from fcnlab.config.grid.labels import quote_labels, suggest_labels
from fcnlab.config.trial import Trial
from fcnlab.console import format_count
from fcnlab.constants import CheckpointChoice
from fcnlab.errors import ConfigError, RunError
from fcnlab.lab import Lab
from fcnlab.runner.plan import Plan, PlannedTrial, make_plan
from fcnlab.trial.find import FinishedTrial, find_run_folder, read_finished_trial, read_trial
from fcnlab.trial.record import Record
from fcnlab.trial.run_folder import RunFolder

_IN_A_FILE = re.compile(r"(.+?\.ya?ml):(.+?)(?::(\d+))?")

BEST = "best"
"""Name of the cell with the greatest mean mIoU."""

EARLIER = (
    "after a change of the grid, a component or the data, a trial has another key: name an earlier one by its key or "
    "its run folder"
)
"""Hint for a grid whose trials have finished before it was changed."""


@dataclass(frozen=True)
class Reference:
    """A trial or cell that a user has named.

    Attributes:
        folder: run folder of the trial; of a cell, that of its first seed.
        checkpoint: the checkpoint that the grid reports; `last` for a trial that is not named by a grid.
        plan: plan of the grid; None for a trial that is not named by a grid.
        planned: the trial in the plan.
        seed: the seed that was named; None for a cell.
        note: the best cell and the reason; None unless the best cell was requested.
    """

    folder: RunFolder
    checkpoint: CheckpointChoice = "last"
    plan: Plan | None = None
    planned: PlannedTrial | None = None
    seed: int | None = None
    note: str | None = None

    @property
    def named_plan(self) -> Plan | None:
        """The plan with only the trials of the named cell, or the named trial; None if no grid is named."""
        if self.plan is None or self.planned is None:
            return None
        trials = [planned for planned in self.plan.trials if planned.cell.label == self.planned.cell.label]
        return replace(self.plan, trials=tuple(trials) if self.seed is None else (self.planned,), prerequisites=())

    def read_record(self) -> Record:
        """Return the record of the trial.

        Raises:
            RunError: the trial has not ended.
        """
        self.folder.read_compatible()
        record, damage = self.folder.inspect()
        if damage is not None:
            raise RunError(
                f"{self.folder.path / damage.file}: {damage.problem}; `fcnlab grid run` runs the trial again"
            )
        if record is None:
            raise RunError(f"{self.folder.path}: this trial has not ended: it has no record")
        return record

    def read_finished(self) -> FinishedTrial:
        """Return the finished trial.

        Raises:
            RunError: the trial has failed or has not finished, or is of another version of fcnlab.
        """
        return read_finished_trial(self.folder)

    def as_planned(self) -> PlannedTrial:
        """Return the trial with its cell, also if it is not named by a grid.

        Raises:
            RunError: the trial is of another version of fcnlab.
        """
        if self.planned is not None:
            return self.planned
        trial: Trial = read_trial(self.folder)
        cell = Cell({}, trial.variant, trial.dataset, trial.recipe, trial.names, trial.init_from)
        record = self.folder.read()
        status = record.status if record is not None else "started"
        return PlannedTrial(cell, cell.label, trial, self.folder.key, self.folder.path.parent, status)


def find_grid_file(*references: str) -> Path | None:
    """Return the grid file of the first reference that contains one.

    Args:
        references: names of trials or cells.
    """
    matches = (_IN_A_FILE.fullmatch(reference) for reference in references)
    return next((Path(match[1]) for match in matches if match is not None), None)


def find_reference(name: str, lab: Lab) -> Reference:
    """Find the trial or cell that a user has named. Neither torch nor MLflow is imported.

    Args:
        name: `FILE:CELL`, `FILE:CELL:SEED`, `FILE:best`, `FILE:best:SEED`, the beginning of a key, or a run folder.
        lab: the lab that contains the run folders.

    Raises:
        ConfigError: the grid file does not exist, or does not contain the cell or the seed.
        RunError: no trial or more than one has the key, or `best` is asked for and no trial has finished.
    """
    named = _IN_A_FILE.fullmatch(name)
    if named is None:
        return Reference(find_run_folder(name, lab))
    file, label, digits = named.groups()
    seed = int(digits) if digits is not None else None
    plan = make_plan(lab.load_grid(Path(file)), lab, recorded_inputs=True)
    note = None
    if label == BEST and BEST not in plan.grid.display_names:
        label, first_seed, note = _find_best_cell(plan)
        planned = find_trial(plan, label, first_seed if seed is None else seed)
    else:
        planned = find_trial(plan, label, seed)
    return Reference(planned.folder, plan.grid.file.checkpoint, plan, planned, seed, note)


def _find_best_cell(plan: Plan) -> tuple[str, int, str]:
    """Return the label of the best cell on the baseline's dataset, its first finished seed, and why it was chosen."""
    checkpoint = plan.grid.file.checkpoint
    values: dict[str, dict[int, float]] = {}
    split, by_dataset = "test", plan.grid.cells_by_dataset
    dataset = next(iter(by_dataset))
    where = f" on {dataset}" if len(by_dataset) > 1 else ""
    for planned in plan.trials:
        is_candidate = planned.state == "finished" and planned.cell.names["dataset"] == dataset
        record = planned.record if is_candidate else None
        metrics = record.find_metrics(record.report_split, checkpoint) if record is not None else None
        if metrics is not None and metrics.miou is not None:
            split = metrics.split
            values.setdefault(planned.cell.label, {})[planned.trial.seed] = metrics.miou
    if not values:
        raise RunError(f"{plan.grid.path}:{BEST}: none of the trials{where} has finished; {EARLIER}")
    best = max(values, key=lambda label: fmean(values[label].values()))
    seeds = values[best]
    mean = f"{100 * fmean(seeds.values()):.1f} % mIoU on {split}, {checkpoint} epoch"
    number = format_count(len(seeds), "finished seed")
    return best, min(seeds), f"best of {format_count(len(values), 'cell')}{where}: {best}, {mean}, mean of {number}"


def find_trial(plan: Plan, name: str, seed: int | None = None) -> PlannedTrial:
    """Return the trial of a plan that matches a name.

    Args:
        plan: the plan.
        name: label or display name of a cell, an unambiguous part of one, or a prefix of a trial's key of at least 6
            characters.
        seed: the seed; None for the first seed of the grid. It is ignored if the name is a prefix of a key.

    Raises:
        ConfigError: no cell or several cells match, or the grid does not have the seed.
    """
    by_key = [planned for planned in plan.all_trials if re.fullmatch("[0-9a-f]{6,64}", name)]
    by_key = [planned for planned in by_key if planned.key.startswith(name)]
    if len(by_key) == 1:
        return by_key[0]
    label = _match_label(plan.grid.display_names, name, str(plan.grid.path))
    trials = {planned.trial.seed: planned for planned in plan.trials if planned.cell.label == label}
    seed = plan.grid.seeds[0] if seed is None else seed
    if seed not in trials:
        listing = ", ".join(map(str, plan.grid.seeds))
        raise ConfigError(f"{plan.grid.path}: no seed {seed}; the seeds are {listing}")
    return trials[seed]


def _match_label(names: Mapping[str, str], name: str, where: str) -> str:
    """Return the label that equals the name, else the only one that contains it. Spaces and case do not matter.

    Args:
        names: the display name of each cell by its label; a name that is no label is searched among them.
        name: the name that the user has given.
        where: the grid file, for messages.
    """
    folded = _fold(name)
    labels_by_label = {label: label for label in names}
    matches = (
        [label for label, text in texts.items() if is_match(text)]
        for is_match in (name.__eq__, lambda text: _fold(text) == folded, lambda text: folded in _fold(text))
        for texts in (labels_by_label, names)
    )
    labels = next(filter(None, matches), [])
    if len(labels) == 1:
        return labels[0]
    if labels:
        raise ConfigError(
            f"{where}: '{name}' matches {len(labels)} cells: {quote_labels(labels)}; give more of the label"
        )
    raise ConfigError(f"{where}: no cell '{name}'; {suggest_labels(name, list(names))}")


def _fold(label: str) -> str:
    """Return a label as it can be written on the command line without quotes, such as fcn8s,bilinear."""
    return "".join(label.split()).lower()
