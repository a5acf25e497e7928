"""Footnotes on the trials: their number, and those that ended early, are damaged or cannot be compared."""

from __future__ import annotations

import pandas as pd

from fcnlab.config.grid.grid import Grid
from fcnlab.report.footnotes.names import list_cells, name_cell
from fcnlab.report.significance import Significance
from fcnlab.report.tables.columns import FLAGGED
from fcnlab.report.trial_records import TrialRecords

CHANCE_MARGIN = 0.02
"""Mean accuracy above that of chance which a network has to have to be called better."""


def describe_flags(grid: Grid, significance: Significance) -> list[str]:
    """List the reasons why cells are not comparable, each once with the cells that it concerns.

    Args:
        grid: the grid.
        significance: differences and flags of the cells.
    """
    cells: dict[str, list[str]] = {}
    for cell, flags in significance.flags.items():
        for flag in flags:
            cells.setdefault(flag.footnote, []).append(name_cell(grid, cell))
    return [f"{FLAGGED} {list_cells(names)}: {reason}." for reason, names in cells.items()]


def describe_spread(grid: Grid, trials: pd.DataFrame) -> list[str]:
    """Describe the mean and the standard deviation over the seeds.

    Args:
        grid: the grid.
        trials: frame with one row per trial.
    """
    if len(grid.seeds) == 1:
        return ["One seed: the variance of training is not included in any value or interval."]
    finished = trials["cell"][trials["status"] == "finished"].value_counts()
    if (finished == len(grid.seeds)).all():
        return [f"Mean ± standard deviation over n = {len(grid.seeds)} seeds."]
    least = f"{finished.min()} to " if finished.min() < finished.max() else ""
    return [
        f"Mean ± standard deviation over the n finished seeds of a cell, {least}{finished.max()} of {len(grid.seeds)}."
    ]


def describe_pruned_cells(trials: pd.DataFrame) -> list[str]:
    """Explain why pruned cells have no metrics.

    Args:
        trials: frame with one row per trial.
    """
    if not (trials["status"] == "pruned").any():
        return []
    return ["Pruned cells have no metrics, since their trials did not finish."]


def describe_damaged_trials(trials: pd.DataFrame) -> list[str]:
    """Count the trials that are left out because of damaged files.

    Args:
        trials: frame with one row per trial.
    """
    count = int((trials["status"] == "damaged").sum())
    if not count:
        return []
    verb = "is" if count == 1 else "are"
    return [
        f"{count} of {len(trials)} trials {verb} left out because of damaged or unreadable files; `fcnlab grid status` "
        "names the files."
    ]


def describe_untrained_cells(grid: Grid, records: TrialRecords) -> list[str]:
    """Name the cells whose trials classify hardly better than networks that do not look at the image.

    Such a network has a mean accuracy of 1 / C on average, for C classes, whatever their frequencies are.

    Args:
        grid: the grid.
        records: records of the finished trials.
    """
    untrained: dict[str, list[bool]] = {}
    for cell, by_seed in records.by_cell.items():
        for record in by_seed.values():
            metrics = record.find_metrics(record.report_split, records.checkpoint)
            classes = sum(iou is not None for iou in metrics.class_iou) if metrics is not None else 0
            if metrics is not None and metrics.mean_acc is not None and classes > 1:
                untrained.setdefault(cell, []).append(metrics.mean_acc < 1 / classes + CHANCE_MARGIN)
    found = {cell: sum(trials) for cell, trials in untrained.items() if any(trials)}
    if not found:
        return []
    names = list_cells([name_cell(grid, cell) for cell in found])
    finished = sum(len(untrained[cell]) for cell in found)
    return [
        f"Not better than chance: {sum(found.values())} of {finished} trials of {names} have a mean accuracy below 1 / "
        f"(number of classes) + {100 * CHANCE_MARGIN:.0f} %, as networks that ignore the image. They have not learned "
        "to segment, and differences to them are no results about their configuration; train longer, or with another "
        "learning rate."
    ]


def describe_plateaus(records: TrialRecords) -> list[str]:
    """Describe the trials that stopped before the last epoch of their recipe.

    Args:
        records: records of the finished trials.
    """
    finished = [record for by_seed in records.by_cell.values() for record in by_seed.values()]
    stopped = [record for record in finished if record.plateau is not None]
    if not stopped:
        return []
    epochs = sorted({record.trained_epochs for record in stopped})
    after = f"epoch {epochs[0]}" if len(epochs) == 1 else f"epochs {epochs[0]} to {epochs[-1]}"
    biased = "val" in {record.report_split for record in stopped}
    return [
        f"{len(stopped)} of {len(finished)} trials stopped after {after}, when mIoU on val no longer improved"
        f"{', the split that is reported: their mIoU is optimistic' if biased else ''}."
    ]
