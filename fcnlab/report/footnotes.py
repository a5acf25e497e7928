"""Footnotes of a table: evaluation, statistics, costs and markers."""

from __future__ import annotations

import pandas as pd

from fcnlab.analysis import MIN_SEEDS
from fcnlab.config.grid.grid import Grid
from fcnlab.report.significance import CONFIDENCE, Significance
from fcnlab.report.tables.columns import FLAGGED, NO_CLAIM, SIGNIFICANT
from fcnlab.report.trial_records import TrialRecords

MAX_NAMES = 6
"""Most classes without a labeled pixel that are named in a footnote."""

EPOCHS = {"last": "the last epoch, fixed before training", "best": "the epoch with the best mIoU on val"}


def write_footnotes(grid: Grid, trials: pd.DataFrame, records: TrialRecords, significance: Significance) -> list[str]:
    """Return the footnotes of a grid's table, one text per line.

    Args:
        grid: the grid.
        trials: frame with one row per trial.
        records: records of the finished trials.
        significance: statistics of the cells.
    """
    finished = trials[trials["status"] == "finished"]
    splits = " and ".join(distinct_texts(finished["report_split"])) or "no split yet"
    lines = [
        f"Evaluated on {splits} at native size, at {EPOCHS[grid.file.checkpoint]}; mIoU and pixel accuracy (acc.) from "
        "the summed counts of the split, without ignored pixels.",
        *_class_sets(records),
        _spread(grid),
        *_test(grid, significance),
        *_costs(finished, records),
        *_early(trials),
        f"Commit {', '.join(distinct_texts(finished['commit'])) or 'not recorded'}.",
    ]
    reasons = [(cell, flag.footnote) for cell, found in significance.flags.items() for flag in found]
    return lines + [f"{FLAGGED} {cell}: {reason}." for cell, reason in reasons]


def _class_sets(records: TrialRecords) -> list[str]:
    """Name the classes without a labeled pixel in an evaluated split, which are in no mean over classes."""
    lines = []
    for record in (record for by_seed in records.by_cell.values() for record in by_seed.values()):
        metrics = record.find_metrics(record.report_split, records.checkpoint)
        if metrics is None or metrics.miou is None or None not in metrics.class_iou:
            continue
        absent = [name for name, iou in zip(record.classes, metrics.class_iou, strict=True) if iou is None]
        names = (
            absent if len(absent) <= MAX_NAMES else [*absent[: MAX_NAMES - 1], f"{len(absent) - MAX_NAMES + 1} more"]
        )
        text = " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))
        classes = len(record.classes)
        lines.append(
            f"mIoU is the mean over {classes - len(absent)} of {classes} classes: {text} "
            f"{'has' if len(absent) == 1 else 'have'} no pixel in {record.report_split}."
        )
    return list(dict.fromkeys(lines))


def _spread(grid: Grid) -> str:
    if len(grid.seeds) == 1:
        return "One seed: the variance of training is not included in any value or interval."
    return f"Mean ± standard deviation over n = {len(grid.seeds)} seeds."


def _test(grid: Grid, significance: Significance) -> list[str]:
    if not significance.comparisons:
        return [f"Δ is the difference to {grid.baseline.label}, paired by seed; there are no counts for an interval."]
    claimed = [one for one in significance.comparisons.values() if one.difference.seeds >= MIN_SEEDS]
    lines = [
        f"Δ is the difference to {grid.baseline.label} in points, paired by seed and image, with its "
        f"{100 * CONFIDENCE:.0f} % interval: Student's t, variance of images ({significance.resamples:,} bootstrap "
        f"resamples){' and of seeds' if len(grid.seeds) > 1 else ' only'}."
    ]
    if claimed:
        corrected = f" after Holm's correction over {len(claimed)} comparisons" if len(claimed) > 1 else ""
        lines.append(f"{SIGNIFICANT}: significant at 5 %{corrected}.")
    if len(claimed) < len(significance.comparisons):
        lines.append(f"{NO_CLAIM}: fewer than {MIN_SEEDS} seeds, so no claim of significance is made.")
    return lines


def _costs(finished: pd.DataFrame, records: TrialRecords) -> list[str]:
    costs = [record.cost for cell in records.by_cell.values() for record in cell.values() if record.cost is not None]
    if not costs:
        return []
    counted = [f"{c.gmacs_size[0]}x{c.gmacs_size[1]}" for c in costs if c.gmacs is not None]
    sizes = " or ".join(distinct_texts(pd.Series(counted, dtype=str)))
    begin = f"GMACs for one image of {sizes}; images" if sizes else "Images"
    return [
        f"{begin}/s during training; device-hours of training and evaluation, summed over the cell's trials, on "
        f"{', '.join(distinct_texts(finished['device'])) or 'hardware not recorded'}.",
        *_shared(records),
    ]


def _shared(records: TrialRecords) -> list[str]:
    """Name the cells whose trials shared a GPU, which slows each of them down."""
    cells: dict[int, list[str]] = {}
    for cell, by_seed in records.by_cell.items():
        for count in sorted({record.environment.sharing for record in by_seed.values() if record.environment}):
            cells.setdefault(count, []).append(cell)
    return [
        f"{count} trials shared a GPU ({', '.join(cells[count])}): images/s is the speed of one of them, and "
        f"{count} trials on a GPU for one hour count as one device-hour."
        for count in sorted(cells)
        if count > 1
    ]


def _early(trials: pd.DataFrame) -> list[str]:
    if not (trials["status"] == "stopped").any():
        return []
    return ["Cells that were stopped early have no metrics, since their trials did not finish."]


def distinct_texts(column: pd.Series) -> list[str]:
    """Return the distinct texts of a column, sorted, without empty ones.

    Args:
        column: column of a frame.
    """
    return sorted({str(value) for value in column} - {"", "nan"})
