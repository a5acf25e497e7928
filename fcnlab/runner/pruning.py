"""Pruning of weak cells while a grid runs, by the `early_stopping` section of its file.

Cells of one dataset are compared, not trials, by the mean val mIoU of their seeds, and only when every trial of the
remaining cells has reached the epoch of the comparison. The result is therefore independent of the number of workers
and of the order of the trials. The baseline of a dataset is never pruned, because every difference of the report refers
to it. See successive halving (Jamieson and Talwalkar, AISTATS 2016, section 2).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fcnlab.config.grid.file import EarlyStopping
from fcnlab.trial.record import Record
from fcnlab.trial.run_folder import RunFolder

if TYPE_CHECKING:
    from fcnlab.config.grid.grid import Grid
    from fcnlab.runner.plan import Plan, PlannedTrial


@dataclass(frozen=True)
class Curve:
    """Val mIoU of a trial so far.

    Attributes:
        miou: mIoU after each epoch, a fraction of 1; None for an epoch without validation.
        has_failed: True if no epoch will follow. The trial takes part in the comparisons at epochs that it has reached,
            so that its failure does not change earlier decisions.
    """

    miou: Sequence[float | None] = ()
    has_failed: bool = False

    def reaches(self, epoch: int) -> bool:
        """Return whether the trial has reached an epoch.

        Args:
            epoch: the epoch, from 1.
        """
        return len(self.miou) >= epoch


@dataclass(frozen=True)
class Decisions:
    """The decisions of early stopping on the cells of one dataset so far.

    Attributes:
        pruned: the pruned cells by label, with the epoch after which each was pruned.
        pause_after: the epoch after which trials pause for the next decision; None once every decision is made.
    """

    pruned: Mapping[str, int]
    pause_after: int | None


def prune(rule: EarlyStopping, curves: Mapping[str, Collection[Curve]], baseline: str) -> Decisions:
    """Make all decisions that the epochs so far allow on the cells of one dataset.

    Args:
        rule: the `early_stopping` section of the grid file.
        curves: the curves of each cell's trials, by the label of the cell. A cell whose trials have all failed before
            the epoch of a decision is not pruned.
        baseline: the label of the baseline of the dataset.
    """
    pruned: dict[str, int] = {}
    for epoch in rule.epochs:
        remaining = {cell: trials for cell, trials in curves.items() if cell not in pruned}
        if not all(curve.has_failed or curve.reaches(epoch) for trials in remaining.values() for curve in trials):
            return Decisions(pruned, epoch)
        means = {cell: mean for cell, trials in remaining.items() if (mean := _mean_at(trials, epoch)) is not None}
        pruned |= {cell: epoch for cell in _find_weak(rule, means) if cell != baseline}
    return Decisions(pruned, None)


def prune_grid(grid: Grid, curves: Mapping[str, Collection[Curve]]) -> dict[str, Decisions]:
    """Make all decisions on a grid that the epochs so far allow.

    Args:
        grid: the grid.
        curves: the curves of each cell's trials, by the label of the cell.

    Returns:
        The decisions by the name of the dataset; none if the grid has no `early_stopping` section.
    """
    rule = grid.file.early_stopping
    if rule is None:
        return {}
    return {
        dataset: prune(rule, {cell.label: curves[cell.label] for cell in cells}, grid.baselines[dataset].label)
        for dataset, cells in grid.cells_by_dataset.items()
    }


def _mean_at(curves: Collection[Curve], epoch: int) -> float | None:
    """Return the mean val mIoU at an epoch, counting an undefined mIoU as 0; None if no trial has reached it."""
    values = [curve.miou[epoch - 1] or 0.0 for curve in curves if curve.reaches(epoch)]
    return math.fsum(values) / len(values) if values else None


def _find_weak(rule: EarlyStopping, means: Mapping[str, float]) -> list[str]:
    if not means:
        return []
    if rule.margin is not None:
        threshold = max(means.values()) - rule.margin / 100
        return [cell for cell, mean in means.items() if mean < threshold]
    assert rule.keep is not None, "validated by EarlyStopping"
    ranked = sorted(means, key=lambda cell: -means[cell])
    return ranked[math.ceil(rule.keep * len(means)) :]


def read_curve(folder: RunFolder, record: Record | None) -> Curve:
    """Return the curve of a trial.

    Args:
        folder: the run folder, read if the trial has not finished.
        record: the record of the trial, if it has ended.

    Returns:
        The curve. A trial that stopped on a plateau keeps the mIoU of its last validation until the last epoch of its
        recipe.
    """
    if record is None or record.status == "failed":
        return Curve([epoch.val_miou for epoch in folder.read_progress()], has_failed=record is not None)
    miou = [epoch.val_miou for epoch in record.epochs]
    if record.plateau is not None:
        miou += [miou[-1]] * (int(record.trial["recipe"]["epochs"]) - len(miou))
    return Curve(miou)


class Pruner:
    """Prunes the cells of a running grid: it keeps the curves of all trials and makes each decision when it is due.

    It prunes nothing, and reads no curve, if the grid has no `early_stopping` section.
    """

    def __init__(self, plan: Plan) -> None:
        """Read the curves of a plan.

        Args:
            plan: the plan.
        """
        self._grid = plan.grid
        applies = plan.grid.file.early_stopping is not None
        self._trials = {planned.key: planned for planned in plan.trials if applies}
        self._curves: dict[str, dict[str, Curve]] = {}
        for planned in self._trials.values():
            self._update_curve(planned)
        self._decisions = self._decide()

    def pause_after(self, planned: PlannedTrial) -> int | None:
        """Return the epoch after which a trial pauses for a decision; None to run it to its end.

        Args:
            planned: a trial of the plan.
        """
        return self._decisions[planned.cell.names["dataset"]].pause_after if planned.key in self._trials else None

    def is_waiting(self, planned: PlannedTrial) -> bool:
        """Return whether a trial has reached the epoch of the next decision.

        Args:
            planned: a trial of the plan.
        """
        pause_after = self.pause_after(planned)
        return pause_after is not None and self._curves[planned.cell.label][planned.key].reaches(pause_after)

    def update(self, trials: Iterable[PlannedTrial]) -> list[tuple[PlannedTrial, int]]:
        """Read the curves of some trials again and make the decisions that are due.

        Args:
            trials: trials with new epochs or a new record.

        Returns:
            The trials that this update has pruned, each with the epoch.
        """
        for planned in trials:
            if planned.key in self._trials:
                self._update_curve(planned)
        before, self._decisions = self._decisions, self._decide()
        new: dict[str, int] = {}
        for dataset, decisions in self._decisions.items():
            new |= {cell: epoch for cell, epoch in decisions.pruned.items() if cell not in before[dataset].pruned}
        return [(planned, new[planned.cell.label]) for planned in self._trials.values() if planned.cell.label in new]

    def _update_curve(self, planned: PlannedTrial) -> None:
        curve = read_curve(planned.folder, planned.folder.read())
        self._curves.setdefault(planned.cell.label, {})[planned.key] = curve

    def _decide(self) -> dict[str, Decisions]:
        return prune_grid(self._grid, {cell: list(trials.values()) for cell, trials in self._curves.items()})
