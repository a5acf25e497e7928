"""Footnotes of a table: evaluation, statistics, costs and markers."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import pandas as pd

from fcnlab.analysis import MIN_SEEDS
from fcnlab.config.grid.grid import Grid
from fcnlab.report.best import Best
from fcnlab.report.evaluated_images import EvaluatedImages
from fcnlab.report.significance import CONFIDENCE, Significance
from fcnlab.report.tables.columns import FLAGGED, NO_CLAIM, SIGNIFICANT
from fcnlab.report.tables.table import Table
from fcnlab.report.trial_records import TrialRecords

MAX_NAMES = 6
"""Most classes without a labeled pixel, and most cells with the same flag, that are named in a footnote."""

SPREAD = frozenset({"miou", "delta", "delta_mean", "pixel_acc", "miou_last", "miou_best"})
"""Columns with a standard deviation or an interval over seeds."""

TESTED = frozenset({"delta", "delta_mean", "delta_std", "p_value", "p_holm"})
"""Columns of the difference to the baseline."""

MEASURED = frozenset({"images_per_s", "peak_memory", "device_hours", "train_seconds"})
"""Columns that depend on the hardware."""

EPOCHS = {"last": "the last epoch, fixed before training", "best": "the epoch with the best mIoU on val"}


def write_footnotes(
    grid: Grid,
    trials: pd.DataFrame,
    records: TrialRecords,
    evaluated: EvaluatedImages,
    significance: Significance,
    best: Best,
    columns: Collection[str],
) -> list[str]:
    """Return the footnotes of a grid's table that concern the shown columns, one text per line.

    Args:
        grid: the grid.
        trials: frame with one row per trial.
        records: records of the finished trials.
        evaluated: the cells by the images on which they were evaluated.
        significance: statistics of the cells.
        best: the best cells.
        columns: names of the shown columns.
    """
    finished = trials[trials["status"] == "finished"]
    miou = any(name.startswith("miou") or name in TESTED for name in columns)
    lines = [
        *((grid.file.labels.describe_unchanged(grid.unchanged) + ".",) if grid.unchanged is not None else ()),
        *(_evaluation(grid, finished, columns) if miou or "pixel_acc" in columns else ()),
        *(describe_class_sets(records) if miou else ()),
        *(_spread(grid, trials) if SPREAD & set(columns) else ()),
        *(_test(grid, evaluated, significance, columns) if TESTED & set(columns) else ()),
        *(_missing_counts(finished, records) if significance.comparisons and TESTED & set(columns) else ()),
        *((best.note,) if best.note and "miou" in columns else ()),
        *_costs(grid, finished, records, columns),
        *_early(trials),
        *_damaged(trials),
        *_plateaus(records),
        f"Commit {', '.join(distinct_texts(finished['commit'])) or 'not recorded'}.",
    ]
    return lines + _flags(grid, significance)


def _flags(grid: Grid, significance: Significance) -> list[str]:
    """List the reasons why cells are not comparable, each once with the cells that it concerns."""
    cells: dict[str, list[str]] = {}
    for cell, found in significance.flags.items():
        for flag in found:
            cells.setdefault(flag.footnote, []).append(grid.display_name(cell))
    return [f"{FLAGGED} {_list_cells(names)}: {reason}." for reason, names in cells.items()]


def _list_cells(names: Sequence[str]) -> str:
    more = f"; {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else ""
    return names[0] if len(names) == 1 else f"{len(names)} cells ({'; '.join(names[:MAX_NAMES])}{more})"


def describe_other_images(grid: Grid, evaluated: EvaluatedImages) -> str:
    """Name the cells that are not shown by class and in pictures.

    Args:
        grid: the grid.
        evaluated: the cells by the images on which they were evaluated.

    Returns:
        A sentence; an empty text if all cells were evaluated on the same images.
    """
    if not evaluated.others:
        return ""
    names = _list_cells([*map(grid.display_name, evaluated.others)])
    verb = "was" if len(evaluated.others) == 1 else "were"
    return (
        f"Classes and images are shown without {names}, which {verb} evaluated on other images or classes than "
        f"{grid.display_name(evaluated.reference)}."
    )


def _evaluation(grid: Grid, finished: pd.DataFrame, columns: Collection[str]) -> list[str]:
    """Describe the split, the checkpoint and the metrics."""
    splits = " and ".join(distinct_texts(finished["report_split"])) or "no split yet"
    metrics = "mIoU and pixel accuracy (acc.)" if "pixel_acc" in columns else "mIoU"
    epoch = EPOCHS[grid.file.checkpoint]
    if grid.file.checkpoint == "last" and any(recipe.stop_on_plateau is not None for recipe in grid.recipes):
        epoch = "the last trained epoch"
    return [
        f"Evaluated on {splits} at native size, at {epoch}; {metrics} from the summed counts of "
        "the split, without ignored pixels."
    ]


def describe_class_sets(records: TrialRecords) -> list[str]:
    """Name the classes without a labeled pixel in an evaluated split, which are in no mean over classes.

    Args:
        records: records of the trials.

    Returns:
        One sentence per set of classes; none if all classes have labeled pixels.
    """
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
        num_classes = len(record.classes)
        lines.append(
            f"mIoU is the mean over {num_classes - len(absent)} of {num_classes} classes: {text} "
            f"{'has' if len(absent) == 1 else 'have'} no pixel in {record.report_split}."
        )
    return list(dict.fromkeys(lines))


def _spread(grid: Grid, trials: pd.DataFrame) -> list[str]:
    if len(grid.seeds) == 1:
        return ["One seed: the variance of training is not included in any value or interval."]
    finished = trials["cell"][trials["status"] == "finished"].value_counts()
    if (finished == len(grid.seeds)).all():
        return [f"Mean ± standard deviation over n = {len(grid.seeds)} seeds."]
    least = f"{finished.min()} to " if finished.min() < finished.max() else ""
    return [
        f"Mean ± standard deviation over the n finished seeds of a cell, {least}{finished.max()} of {len(grid.seeds)}."
    ]


def _test(grid: Grid, evaluated: EvaluatedImages, significance: Significance, columns: Collection[str]) -> list[str]:
    """Describe the differences, their intervals and the markers."""
    if len(grid.cells) == 1:
        return []
    baseline = grid.display_name(grid.baseline.label)
    unlike = evaluated.others if evaluated.reference == grid.baseline.label else ()
    other_images = []
    if unlike:
        verb, whose = ("was", "its") if len(unlike) == 1 else ("were", "their")
        other_images = [
            f"{_list_cells([*map(grid.display_name, unlike)])} {verb} evaluated on other images or classes than "
            f"{baseline}: {whose} Δ has no interval."
        ]
    if not significance.comparisons:
        reason = "" if unlike and len(evaluated.cells) == 1 else "; there are no counts for an interval"
        return [f"Δ is the difference to {baseline}, paired by seed{reason}.", *other_images]
    claimed = [one for one in significance.comparisons.values() if one.difference.seeds >= MIN_SEEDS]
    seeds = {one.difference.seeds for one in significance.comparisons.values()}
    parts = " only" if max(seeds) == 1 else " and of seeds" if min(seeds) > 1 else ", and of seeds if two are shared"
    lines = [
        f"Δ is the difference to {baseline} in points, paired by seed and image, with its "
        f"{100 * CONFIDENCE:.0f} % interval: Student's t, variance of images ({significance.resamples:,} bootstrap "
        f"resamples){parts}."
    ]
    if claimed and not {"delta", "delta_mean"}.isdisjoint(columns):
        corrected = f" after Holm's correction over {len(claimed)} comparisons" if len(claimed) > 1 else ""
        lines.append(f"{SIGNIFICANT}: significant at 5 %{corrected}.")
    if len(claimed) < len(significance.comparisons):
        lines.append(f"{NO_CLAIM}: fewer than {MIN_SEEDS} seeds, so no claim of significance is made.")
    return lines + other_images


def _missing_counts(finished: pd.DataFrame, records: TrialRecords) -> list[str]:
    """Count the finished trials without counts, which are in the mean of their cell and not in its difference."""
    missing = len(finished) - sum(len(records.counts(cell)) for cell in records.by_cell)
    if not missing:
        return []
    trials = "1 trial" if missing == 1 else f"{missing} trials"
    return [
        f"The counts of {trials} could not be read: Δ is over the seeds with counts, and has no interval where there "
        "are none."
    ]


def _costs(grid: Grid, finished: pd.DataFrame, records: TrialRecords, columns: Collection[str]) -> list[str]:
    """Describe how the shown costs are measured, and on which hardware."""
    costs = [record.cost for cell in records.by_cell.values() for record in cell.values() if record.cost is not None]
    counted = [f"{c.gmacs_size[0]}x{c.gmacs_size[1]}" for c in costs if c.gmacs is not None]
    texts = {
        "gmacs": f"GMACs for one image of {' or '.join(distinct_texts(pd.Series(counted, dtype=str)))}",
        "images_per_s": "images/s during training",
        "device_hours": "device-hours of training and evaluation, summed over the cell's finished trials",
    }
    shown = [text for name, text in texts.items() if name in columns and (name != "gmacs" or counted)]
    if not costs or not shown:
        return []
    hardware = f", on {', '.join(distinct_texts(finished['device'])) or 'hardware not recorded'}"
    line = "; ".join(shown) + (hardware if MEASURED & set(columns) else "")
    return [f"{line[0].upper()}{line[1:]}.", *(_shared(grid, records) if MEASURED & set(columns) else ())]


def _shared(grid: Grid, records: TrialRecords) -> list[str]:
    """Name the cells whose trials shared a GPU, which slows each of them down."""
    cells: dict[int, list[str]] = {}
    for cell, by_seed in records.by_cell.items():
        for count in sorted({record.environment.sharing for record in by_seed.values() if record.environment}):
            cells.setdefault(count, []).append(grid.display_name(cell))
    return [
        f"{count} trials shared a GPU{_list_unless_all(cells[count], records)}: images/s is the speed of one of them, "
        f"and {count} trials on a GPU for one hour count as one device-hour."
        for count in sorted(cells)
        if count > 1
    ]


def _list_unless_all(cells: list[str], records: TrialRecords) -> str:
    return "" if len(cells) == len(records.by_cell) else f" ({', '.join(cells)})"


def _early(trials: pd.DataFrame) -> list[str]:
    if not (trials["status"] == "pruned").any():
        return []
    return ["Pruned cells have no metrics, since their trials did not finish."]


def _damaged(trials: pd.DataFrame) -> list[str]:
    count = int((trials["status"] == "damaged").sum())
    if not count:
        return []
    verb = "is" if count == 1 else "are"
    return [
        f"{count} of {len(trials)} trials {verb} left out because of damaged or unreadable files; `fcnlab grid status` "
        "names the files."
    ]


def _plateaus(records: TrialRecords) -> list[str]:
    """Describe the trials that stopped before the last epoch of their recipe."""
    found = [record for by_seed in records.by_cell.values() for record in by_seed.values()]
    stopped = [record for record in found if record.plateau is not None]
    if not stopped:
        return []
    epochs = sorted({record.trained_epochs for record in stopped})
    after = f"epoch {epochs[0]}" if len(epochs) == 1 else f"epochs {epochs[0]} to {epochs[-1]}"
    biased = "val" in {record.report_split for record in stopped}
    return [
        f"{len(stopped)} of {len(found)} trials stopped after {after}, when mIoU on val no longer improved"
        f"{', the split that is reported: their mIoU is optimistic' if biased else ''}."
    ]


def distinct_texts(column: pd.Series) -> list[str]:
    """Return the distinct texts of a column, sorted, without empty ones.

    Args:
        column: column of a frame.
    """
    return sorted({str(value) for value in column} - {"", "nan"})


def write_short_notes(
    grid: Grid, significance: Significance, best: Best, table: Table, columns: Collection[str], *, complete: bool
) -> list[str]:
    """Return sentences for the line below a table in a paper: the spread, the differences and the markers in it.

    Args:
        grid: the grid.
        significance: statistics of the cells.
        best: the best cells.
        table: the table.
        columns: names of the columns that the sentences are about.
        complete: whether all trials of the cells with metrics have finished.
    """
    text = "".join(text for row in table.rows for text in row)
    seeds = len(grid.seeds)
    notes = []
    if SPREAD & set(columns):
        number = f"{seeds} seeds" if complete else "the finished seeds of each cell"
        notes.append("One seed." if seeds == 1 else f"Mean ± standard deviation over {number}.")
    if TESTED & set(columns):
        interval = " with 95 % interval" if "[95 %]" in "".join(table.headings) and "[" in text else ""
        notes.append(f"Δ: difference to {grid.display_name(grid.baseline.label)} in points{interval}.")
    if table.marks:
        notes.append("Bold: highest mean, and cells not significantly different." if best.compared else
                     "Bold: highest mean.")  # fmt: skip
    if SIGNIFICANT in text:
        notes.append(f"{SIGNIFICANT} significant at 5 % after Holm's correction.")
    if NO_CLAIM in text:
        notes.append(f"{NO_CLAIM} fewer than {MIN_SEEDS} seeds: no claim of significance.")
    flags = {flag.name: None for found in significance.flags.values() for flag in found}
    return notes + ([f"{FLAGGED} differs from the baseline also in {', '.join(flags)}."] if flags else [])
