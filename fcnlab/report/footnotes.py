"""Footnotes of a table: evaluation, statistics, costs and markers."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from itertools import chain
from typing import TYPE_CHECKING

import pandas as pd

from fcnlab.analysis import CONFIDENCE, MIN_SEEDS, select_folds
from fcnlab.config.dataset import CrossValidation, FolderDataset
from fcnlab.config.grid.display_names import Names
from fcnlab.config.grid.grid import Cell, Grid
from fcnlab.console import format_count
from fcnlab.report.dataset_groups import DatasetGroup
from fcnlab.report.image_notes import describe_image_metrics, describe_missing_image_metrics
from fcnlab.report.significance import Significance
from fcnlab.report.tables.columns import (
    FLAGGED,
    NO_CLAIM,
    SIGNIFICANT,
    find_column,
    format_points,
    is_per_image,
    name_class_metrics,
    split_class_column,
)
from fcnlab.report.tables.names import EPOCHS, join_names, quote_name
from fcnlab.report.tables.table import Table
from fcnlab.report.trial_records import TrialRecords, find_missing_counts
from fcnlab.runner.checks.repeated_images import RepeatedImages
from fcnlab.trial.comparability import find_fold
from fcnlab.trial.record import Record, SplitMetrics

if TYPE_CHECKING:
    from fcnlab.report.report import Report

MAX_NAMES = 6
"""Most classes without a labeled pixel, and most cells with the same flag, that are named in a footnote."""

DELTAS = frozenset({"delta", "delta_mean"})
"""Columns of the mean difference to the baseline over seeds."""

CLASS_MEANS = frozenset({"mean_acc", "boundary_iou", "dice"})
"""Columns of means over the same classes as mIoU."""

TESTED = frozenset({"delta", "delta_mean", "delta_std", "p_value", "p_holm"})
"""Columns of the difference to the baseline."""

COSTS = {
    "images_per_s": "images/s during training",
    "peak_memory": "memory: the largest peak of a trial, of the tensors on a GPU and of the process on the CPU",
    "train_seconds": "train s: mean time of a trial's training without evaluation",
    "device_hours": "device-hours of training and evaluation, summed over the cell's finished trials",
}
"""Descriptions of the columns that depend on the hardware."""

SHARED = frozenset({"images_per_s", "train_seconds", "device_hours"})
"""Columns that change if trials share a GPU."""

CHECKPOINT_GAP = 0.01
"""Difference in mIoU between the last and the best epoch from which a footnote gives it."""


def write_footnotes(report: Report, columns: Collection[str], pivoted: Table | None = None) -> list[str]:
    """Return the footnotes of a grid's table that concern the shown columns, one text per line.

    Args:
        report: report of the grid.
        columns: names of the shown columns.
        pivoted: the table if it is pivoted; its values have markers of differences, which it does not show.
    """
    grid, trials, records, significance = report.grid, report.trials, report.records, report.significance
    finished = trials[trials["status"] == "finished"]
    miou, metrics = (
        any(name.startswith("miou") or name in TESTED for name in columns),
        list_metrics(columns, report.names),
    )
    per_image = any(map(is_per_image, columns))
    unchanged = [grid.file.labels.describe_unchanged(grid.unchanged) + "."] if grid.unchanged is not None else []
    if finished.empty:
        return [*unchanged, "No trial has finished yet.", *_early(trials), *_damaged(trials)]
    lines = [
        *unchanged,
        *(_evaluation(grid, finished, records, metrics or ["mIoU"] * miou) if miou or metrics or per_image else ()),
        *_describe_class_columns(report.names, columns, pivoted),
        *describe_image_metrics(report, columns),
        *describe_missing_image_metrics(report, columns),
        *_describe_means(report, columns, miou=miou),
        *_describe_repeated_images(grid, report.repeated),
        *_describe_missing_images(report.not_compared),
        *_describe_folds(grid, report.groups, finished),
        *(_spread(grid, trials) if metrics or per_image or DELTAS & set(columns) else ()),
        *(_checkpoints(grid, report.cells, finished) if miou else ()),
        *(_test(report, finished, columns) if TESTED & set(columns) else ()),
        *(_describe_pivot_markers(report, pivoted) if pivoted is not None else ()),
        *(_missing_counts(report) if significance.comparisons and TESTED & set(columns) else ()),
        *((report.best.note,) if report.best.note and "miou" in columns else ()),
        *_costs(grid, finished, records, columns),
        *_early(trials),
        *_damaged(trials),
        *_plateaus(records),
        f"Commit {', '.join(distinct_texts(finished['commit'])) or 'not recorded'}.",
    ]
    return lines + _flags(grid, significance)


def list_metrics(columns: Collection[str], names: Names) -> list[str]:
    """Return the descriptions of the metrics of which columns have the mean and standard deviation; mIoU is the first.

    Args:
        columns: names of the columns.
        names: display names, whose headings are behind the descriptions.
    """
    metrics = [metric for name in columns if (metric := _name_metric(name, names))]
    return list(dict.fromkeys(["mIoU"] * (not TESTED.isdisjoint(columns)) + sorted(metrics, key=lambda m: m != "mIoU")))


def _name_metric(column: str, names: Names) -> str:
    """Return the description of a column's metric with the column's heading of the grid file instead of the default."""
    metric, heading = find_column(column).metric, names.columns.get(column)
    return f"{metric.partition(' (')[0]} ({heading.removesuffix(' %')})" if heading and " (" in metric else metric


def _flags(grid: Grid, significance: Significance) -> list[str]:
    """List the reasons why cells are not comparable, each once with the cells that it concerns."""
    cells: dict[str, list[str]] = {}
    for cell, flags in significance.flags.items():
        for flag in flags:
            cells.setdefault(flag.footnote, []).append(_name_cell(grid, cell))
    return [f"{FLAGGED} {_list_cells(names)}: {reason}." for reason, names in cells.items()]


def _name_cell(grid: Grid, label: str) -> str:
    return quote_name(grid.display_name(label))


def _list_cells(names: Sequence[str]) -> str:
    more = f"; {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else ""
    return names[0] if len(names) == 1 else f"{len(names)} cells ({'; '.join(names[:MAX_NAMES])}{more})"


def describe_other_images(report: Report) -> str:
    """Name the cells that are not shown by class and in pictures.

    Args:
        report: report of the grid.

    Returns:
        A sentence; an empty text if all cells were evaluated on the same images.
    """
    shown = report.groups[0]
    others = [_name_cell(report.grid, cell) for cell in report.records.by_cell if cell not in shown.same]
    if not others:
        return ""
    verb = "was" if len(others) == 1 else "were"
    return (
        f"Classes and images are shown without {_list_cells(others)}, which {verb} evaluated on other images or "
        f"classes than {_name_cell(report.grid, shown.reference)}."
    )


def name_baselines(grid: Grid, groups: Sequence[DatasetGroup]) -> str:
    """Return the name of the baseline for a sentence, or a phrase if each dataset has its own.

    Args:
        grid: the grid.
        groups: the cells by dataset.
    """
    return _name_cell(grid, grid.baseline.label) if len(groups) == 1 else "the baseline of the dataset"


def _evaluation(grid: Grid, finished: pd.DataFrame, records: TrialRecords, metrics: Sequence[str]) -> list[str]:
    """Describe the split, the checkpoint and the metrics from summed counts."""
    splits = " and ".join(distinct_texts(finished["report_split"]))
    number = _describe_images(grid, records)
    epoch = EPOCHS[grid.file.checkpoint]
    if grid.file.checkpoint == "last":
        varies = any(recipe.stop_on_plateau is not None for recipe in grid.recipes)
        epoch = "the last trained epoch" if varies else f"{epoch}, whose number was fixed before training"
    elif "val" in splits:
        epoch += ", which is optimistic on val itself"
    start = f"Evaluated on {splits}{number} at native size, at {epoch}; "
    if not metrics:
        return [f"{start}ignored pixels are not counted."]
    return [f"{start}{join_names(metrics)} from the summed counts of the split, without ignored pixels."]


def _describe_class_columns(names: Names, columns: Collection[str], pivoted: Table | None) -> list[str]:
    """Name the metric and the unit of columns that are headed by the name of a class."""
    pairs = [split_class_column(name) for name in columns]
    metrics = name_class_metrics(columns)
    if not metrics:
        return []
    if pivoted is not None:
        class_name = names.classes.get(pairs[0][1], pairs[0][1])
        return [f"Values: {metrics[0]} of the class {quote_name(class_name)} in %."]
    return [f"Columns of classes: {join_names(metrics)} in %."]


def _describe_images(grid: Grid, records: TrialRecords) -> str:
    """Return the number of evaluated images in parentheses; in a cross-validation those of all folds of a cell."""
    sizes: set[int] = set()
    divisions: set[tuple[int, int]] = set()
    for cell in grid.cells:
        folds = cell.dataset.folds_by_seed
        images = {
            seed: metrics.images
            for seed, record in records.by_cell.get(cell.label, {}).items()
            if (metrics := record.find_metrics(record.report_split, records.checkpoint)) is not None
        }
        if not images:
            continue
        held_out = select_folds(images, folds)
        sizes |= {*images.values()} if folds is None else {sum(images[seed] for seed in held_out)}
        divisions.add((0, 0) if folds is None else (len(held_out), folds.folds))
    if not sizes:
        return ""
    *others, largest = sorted(sizes)
    number = " or ".join([*map(str, others), format_count(largest, "image")])
    held_out_in = ""
    if (0, 0) not in divisions and len({folds for _, folds in divisions}) == 1:
        most, folds_of_all = max(divisions)
        held_out_in = f", held out in {folds_of_all if most == folds_of_all else f'{most} of {folds_of_all}'} folds"
    return f" ({number}{held_out_in})"


def _describe_means(report: Report, columns: Collection[str], *, miou: bool) -> list[str]:
    """Name the classes without a labeled pixel if a column is a mean over classes."""
    if miou:
        return describe_class_sets(report)
    return [] if CLASS_MEANS.isdisjoint(columns) else describe_class_sets(report, "Means of classes are")


def describe_class_sets(report: Report, subject: str = "mIoU is the mean") -> list[str]:
    """Name the classes without a labeled pixel in an evaluated split, which are in no mean over classes.

    Args:
        report: report of the grid.
        subject: the beginning of the sentence.

    Returns:
        One sentence per set of classes and evaluated split; none if all classes have labeled pixels.
    """
    records, shown = report.records, report.names.classes
    lines, name_split = [], _find_names_of_splits([record for record, _ in _reported_metrics(records)])
    for record, metrics in _reported_metrics(records):
        if metrics.miou is None or None not in metrics.class_iou:
            continue
        classes = zip(record.classes, metrics.class_iou, strict=True)
        absent = [shown.get(name, name) for name, iou in classes if iou is None]
        names = (
            absent if len(absent) <= MAX_NAMES else [*absent[: MAX_NAMES - 1], f"{len(absent) - MAX_NAMES + 1} more"]
        )
        num_classes = len(record.classes)
        lines.append(
            f"{subject} over {num_classes - len(absent)} of {num_classes} classes: {join_names(names)} "
            f"{'has' if len(absent) == 1 else 'have'} no pixel in {name_split(record)}."
        )
    return list(dict.fromkeys(lines))


def _find_names_of_splits(records: Sequence[Record]) -> Callable[[Record], str]:
    """Return a function that names the evaluated split of a trial, with what distinguishes it from those of the others.

    Args:
        records: records of all trials.
    """
    datasets = {record.trial["names"].get("dataset") for record in records}
    numbers = {(record.trial["dataset"].get("cross_validation") or {}).get("folds") for record in records} - {None}
    divisions = {fold[0] for fold in map(find_fold, records) if fold is not None}

    def name(record: Record) -> str:
        text, fold = record.report_split, find_fold(record)
        if fold is not None:
            text += f" of fold {fold[1]}"
            text += f" of {record.trial['dataset']['cross_validation']['folds']}" if len(numbers) > 1 else ""
            text += f" in the division with seed {fold[0]}" if len(divisions) > 1 else ""
        return f"{text} of {record.trial['names'].get('dataset')}" if len(datasets) > 1 else text

    return name


def _reported_metrics(records: TrialRecords) -> Iterator[tuple[Record, SplitMetrics]]:
    """Yield each record with its metrics of the reported split."""
    for record in chain.from_iterable(by_seed.values() for by_seed in records.by_cell.values()):
        metrics = record.find_metrics(record.report_split, records.checkpoint)
        if metrics is not None:
            yield record, metrics


def _describe_repeated_images(grid: Grid, repeated: Iterable[RepeatedImages]) -> list[str]:
    """Describe the images of the reported split that are equal to training images."""
    return [
        f"Metrics{f' of {_name_cell(grid, images.cell)}' if images.cell else ''} are too high: trained on {images}."
        for images in repeated
        if images.is_reported
    ]


def _describe_missing_images(datasets: Sequence[str]) -> list[str]:
    """Describe the datasets whose evaluated images were not compared with their training images."""
    if not datasets:
        return []
    return [f"Not checked: images of {', '.join(datasets)} in more than one split, because the files are missing here."]


def _describe_folds(grid: Grid, groups: Sequence[DatasetGroup], finished: pd.DataFrame) -> list[str]:
    """Describe the cross-validations of each dataset: one line for each number of folds or fixed fold."""
    lines = []
    for group in groups:
        where = f" on {group.name}" if len(groups) > 1 else ""
        cells = [cell for cell in grid.cells if cell.label in group.cells]
        for parts in dict.fromkeys(map(_find_cross_validation, cells)):
            if parts is None:
                continue
            if parts.fold is not None:
                lines.append(f"Cross-validation{where}: all trials hold out fold {parts.fold} of {parts.folds}.")
                continue
            own = [cell.label for cell in cells if _find_cross_validation(cell) == parts]
            seeds = list(map(int, finished["seed"][finished["cell"].isin(own)].unique()))
            held_out, number = len(select_folds(seeds, parts)), parts.folds
            missing = f"; folds held out so far: {held_out}" if held_out < number else ""
            repeated = f"; every further {number} seeds use another division" if max(seeds, default=0) >= number else ""
            lines.append(
                f"Cross-validation{where} in {number} folds: each image is held out once per {number} seeds"
                f"{missing}{repeated}."
            )
    return list(dict.fromkeys(lines))


def _find_cross_validation(cell: Cell) -> CrossValidation | None:
    return cell.dataset.cross_validation if isinstance(cell.dataset, FolderDataset) else None


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


def _checkpoints(grid: Grid, cells: pd.DataFrame, finished: pd.DataFrame) -> list[str]:
    """List the cells whose mIoU differs much between the last and the best epoch.

    On val, the best epoch is better by selection. The difference is then given only where the best epoch is reported.
    """
    if grid.file.checkpoint == "last" and (finished["report_split"] != "test").any():
        return []
    reported, other = ("best", "last") if grid.file.checkpoint == "best" else ("last", "best")
    gaps = zip(cells["cell"], cells[f"miou_{other}"] - cells[f"miou_{reported}"], strict=True)
    texts = [
        f"{_name_cell(grid, str(cell))} {format_points(float(gap))}" for cell, gap in gaps if abs(gap) >= CHECKPOINT_GAP
    ]
    if not texts:
        return []
    return [
        f"At {EPOCHS[other]} instead, mIoU differs by {100 * CHECKPOINT_GAP:g} point or more: {_list_cells(texts)}."
    ]


def _test(report: Report, finished: pd.DataFrame, columns: Collection[str]) -> list[str]:
    """Describe the differences, their intervals and the markers."""
    if len(report.grid.cells) == 1:
        return []
    delta = f"Δ is the difference to {name_baselines(report.grid, report.groups)}"
    listed = "; ".join(f"{_name_cell(report.grid, group.baseline)} on {group.name}" for group in report.groups)
    of_datasets = [f"Baselines: {listed}."] if len(report.groups) > 1 else []
    if not finished["cell"].isin([group.baseline for group in report.groups]).any():
        return [f"{delta}, of which no trial has finished.", *of_datasets]
    if report.significance.comparisons:
        lines = [f"{delta} in points, paired by seed and image, with {_describe_interval(report)}.", *of_datasets]
        lines += _describe_markers(report.significance, columns)
    else:
        reason = "; there are no counts for an interval" if _have_no_counts(report) else ""
        lines = [f"{delta}, paired by seed{reason}.", *of_datasets]
    return lines + [line for group in report.groups for line in _exclude(report, group)]


def _have_no_counts(report: Report) -> bool:
    """Return whether a finished cell has no interval for no other reason than missing counts."""
    explained = {cell for group in report.groups for cell in (group.baseline, *group.others)}
    explained |= set(list_unpaired_cells(report.cells))
    return bool((report.cells["miou"].notna() & ~report.cells["cell"].isin(explained)).any())


def _describe_interval(report: Report) -> str:
    """Describe the interval of the differences, and the variances in it."""
    seeds = {one.difference.seeds for one in report.significance.comparisons.values()}
    parts = " only" if max(seeds) == 1 else " and of seeds" if min(seeds) > 1 else ", and of seeds if two are shared"
    methods = []
    if min(seeds) == 1 or any(group.folds is None for group in report.groups):
        methods.append(f"variance of images ({report.significance.resamples:,} bootstrap resamples){parts}")
    if max(seeds) > 1 and any(group.folds is not None for group in report.groups):
        methods.append(
            "variance of folds corrected for their common training images (Nadeau and Bengio, 2003; approximate)"
        )
    return f"its {100 * CONFIDENCE:.0f} % interval: Student's t, {'; in a cross-validation '.join(methods)}"


def _describe_markers(significance: Significance, columns: Collection[str]) -> list[str]:
    """Describe the markers behind differences."""
    lines, claims = [], significance.num_claims
    if claims and not DELTAS.isdisjoint(columns):
        several = f" after Holm's correction over {claims} comparisons; the intervals are not corrected"
        lines.append(f"{SIGNIFICANT}: significant at 5 %{several if claims > 1 else ''}.")
    if min(one.difference.seeds for one in significance.comparisons.values()) < MIN_SEEDS:
        lines.append(f"{NO_CLAIM}: fewer than {MIN_SEEDS} seeds, so no claim of significance is made.")
    return lines


def _describe_pivot_markers(report: Report, table: Table) -> list[str]:
    """Describe the markers of a pivoted table, which shows no differences."""
    text = "".join(text for row in table.rows for text in row[table.text_columns :])
    claims = report.significance.num_claims
    corrected = f" after Holm's correction over {claims} comparisons" if claims > 1 else ""
    baseline = name_baselines(report.grid, report.groups)
    lines = []
    if SIGNIFICANT in text:
        lines.append(f"{SIGNIFICANT}: the difference in mIoU to {baseline} is significant at 5 %{corrected}.")
    if NO_CLAIM in text:
        lines.append(f"{NO_CLAIM}: fewer than {MIN_SEEDS} seeds shared with {baseline}, so no claim of significance.")
    return lines


def _exclude(report: Report, group: DatasetGroup) -> list[str]:
    """Name the cells of a dataset that have no interval or no difference."""
    cells, lines = report.cells[report.cells["cell"].isin(group.cells)], []
    baseline = _name_cell(report.grid, group.baseline)
    if group.others and group.reference == group.baseline:
        verb, whose = ("was", "its") if len(group.others) == 1 else ("were", "their")
        lines.append(
            f"{_list_cells([_name_cell(report.grid, cell) for cell in group.others])} {verb} evaluated on other images "
            f"or classes than {baseline}: {whose} Δ has no interval."
        )
    unpaired = [_name_cell(report.grid, cell) for cell in list_unpaired_cells(cells)]
    if unpaired:
        lines.append(f"{_list_cells(unpaired)}: no Δ without a finished seed in common with {baseline}.")
    return lines


def list_unpaired_cells(cells: pd.DataFrame) -> list[str]:
    """Return the labels of the cells with an mIoU that have no finished seed in common with the baseline.

    Args:
        cells: frame with one row per cell.
    """
    return [str(cell) for cell in cells["cell"][cells["miou"].notna() & (cells["delta_n"] == 0) & ~cells["baseline"]]]


def _missing_counts(report: Report) -> list[str]:
    """Count the finished trials without counts, which are in the mean of their cell and not in its difference."""
    missing = sum(find_missing_counts(report.cells, report.records).values())
    if not missing:
        return []
    return [
        f"The counts of {format_count(missing, 'trial')} could not be read: Δ is over the seeds with counts, and has "
        "no interval where there are none."
    ]


def _costs(grid: Grid, finished: pd.DataFrame, records: TrialRecords, columns: Collection[str]) -> list[str]:
    """Describe how the shown costs are measured, and on which hardware."""
    costs = [record.cost for cell in records.by_cell.values() for record in cell.values() if record.cost is not None]
    counted = [f"{c.gmacs_size[0]}x{c.gmacs_size[1]}" for c in costs if c.gmacs is not None]
    measured = [text for name, text in COSTS.items() if name in columns]
    sizes = " or ".join(distinct_texts(pd.Series(counted, dtype=str)))
    shown = [*([f"GMACs for one image of {sizes}"] if counted and "gmacs" in columns else []), *measured]
    if not costs or not shown:
        return []
    hardware = f"; on {', '.join(distinct_texts(finished['device'])) or 'hardware not recorded'}"
    line = "; ".join(shown) + (hardware if measured else "")
    return [f"{line[0].upper()}{line[1:]}.", *(_shared(grid, records) if SHARED & set(columns) else ())]


def _shared(grid: Grid, records: TrialRecords) -> list[str]:
    """Name the cells whose trials shared a GPU, which slows each of them down."""
    cells: dict[int, list[str]] = {}
    for cell, by_seed in records.by_cell.items():
        for count in sorted(
            {record.environment.trials_per_device for record in by_seed.values() if record.environment}
        ):
            cells.setdefault(count, []).append(_name_cell(grid, cell))
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


def distinct_texts(column: pd.Series) -> list[str]:
    """Return the distinct texts of a column, sorted, without empty ones.

    Args:
        column: column of a frame.
    """
    return sorted({str(value) for value in column} - {"", "nan"})


def write_short_notes(report: Report, table: Table, columns: Collection[str]) -> list[str]:
    """Return sentences for the line below a table in a paper: the spread, the differences and the markers in it.

    Args:
        report: report of the grid.
        table: the table.
        columns: names of the columns that the sentences are about.
    """
    grid, significance = report.grid, report.significance
    text = "".join(text for row in table.rows for text in row)
    seeds = len(grid.seeds)
    notes: list[str] = []
    if list_metrics(columns, report.names) or DELTAS & set(columns) or any(map(is_per_image, columns)):
        complete = report.cells["n"].isin([0, seeds]).all()
        number = f"{seeds} seeds" if complete else "the finished seeds of each cell"
        folds = [f"{one.folds.folds}-fold cross-validation." for one in report.groups if one.folds is not None]
        notes += dict.fromkeys(folds)
        notes.append("One seed." if seeds == 1 else f"Mean ± standard deviation over {number}.")
    notes += _describe_class_columns(report.names, columns, table if table.is_pivoted else None)
    notes += describe_image_metrics(report, columns)
    baseline = name_baselines(grid, report.groups)
    if TESTED & set(columns):
        interval = ", with 95 % interval" if "delta" in columns and "[" in text else ""
        notes.append(f"Δ: difference in mIoU to {baseline} in points{interval}.")
    if table.marks:
        highest = "highest mean" + (" of each dataset" if len(report.groups) > 1 else "")
        notes.append(
            f"Bold: {highest}{', and cells not significantly different' if report.best.marks_equal_cells else ''}."
        )
    if SIGNIFICANT in text:
        corrected = " after Holm's correction" if significance.num_claims > 1 else ""
        difference = f"difference to {baseline} " if table.is_pivoted else ""
        notes.append(f"{SIGNIFICANT} {difference}significant at 5 %{corrected}.")
    if NO_CLAIM in text:
        notes.append(f"{NO_CLAIM} fewer than {MIN_SEEDS} seeds: no claim of significance.")
    names = dict.fromkeys(flag.name for flags in significance.flags.values() for flag in flags)
    return notes + ([f"{FLAGGED} differs from the baseline also in {', '.join(names)}."] if names else [])
