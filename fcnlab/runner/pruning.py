"""Early stopping of hopeless cells, as a grid's `early_stopping` says: which cells go on, and up to which epoch.

A decision is made about cells, not trials, and only when every trial of those still in the race has reached its
epoch: by the mean of their figures on val. So it is the same whatever the number of workers and the order of trials,
and no cell is ever represented by its luckier seeds. (Successive halving: Jamieson and Talwalkar, AISTATS 2016.)
The baseline always goes on, because Δ needs it.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from fcnlab.config.grid.file import EarlyStopping
from fcnlab.trial.record import Record
from fcnlab.trial.run_folder import RunFolder

Curve = Sequence[float | None]
"""mIoU on val after each epoch so far, fractions of 1; None where it was not scored."""


@dataclass(frozen=True)
class Standing:
    """How a grid's cells stand: which are stopped and after which epoch; how far the others may run now.

    `until` is None once every decision has been made.
    """

    stopped: Mapping[str, int]
    until: int | None


def standing(stop: EarlyStopping, curves: Mapping[str, Collection[Curve | None]], baseline: str) -> Standing:
    """Decide what can be decided by now.

    `curves` are those of each cell's trials by the cell's label; None is a trial that has failed, of which no decision
    waits. A cell of which every trial has failed has no figure and is left alone.
    """
    stopped: dict[str, int] = {}
    for epoch in stop.epochs:
        running = {cell: trials for cell, trials in curves.items() if cell not in stopped}
        reached = [curve is None or len(curve) >= epoch for trials in running.values() for curve in trials]
        if not all(reached):
            return Standing(stopped, epoch)
        figures = {cell: figure for cell, trials in running.items() if (figure := _mean(trials, epoch)) is not None}
        stopped |= {cell: epoch for cell in _hopeless(stop, figures) if cell != baseline}
    return Standing(stopped, None)


def _mean(curves: Collection[Curve | None], epoch: int) -> float | None:
    """The mean figure of a cell's trials at an epoch; where nothing could be scored it is 0."""
    values = [curve[epoch - 1] or 0.0 for curve in curves if curve is not None]
    return math.fsum(values) / len(values) if values else None


def _hopeless(stop: EarlyStopping, figures: Mapping[str, float]) -> list[str]:
    if not figures:
        return []
    if stop.margin is not None:
        bar = max(figures.values()) - stop.margin / 100
        return [cell for cell, figure in figures.items() if figure < bar]
    assert stop.keep is not None, "validated: margin or keep is given"
    kept = math.ceil(stop.keep * len(figures))
    ranked = sorted(figures, key=lambda cell: -figures[cell])
    return ranked[kept:]


def curve_of(folder: RunFolder, record: Record | None) -> Curve | None:
    """The figures of a trial so far; None if it has failed."""
    if record is not None and record.status == "failed":
        return None
    epochs = record.epochs if record is not None else folder.read_progress()
    return [epoch.val_miou for epoch in epochs]
