"""Footnotes on the metrics: the split and the checkpoint that are evaluated, and the classes of the means."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from itertools import chain
from typing import TYPE_CHECKING

import pandas as pd

from fcnlab.analysis import select_folds
from fcnlab.config.grid.display_names import Names
from fcnlab.config.grid.grid import Grid
from fcnlab.console import format_count
from fcnlab.report.footnotes.differences import TESTED
from fcnlab.report.footnotes.names import MAX_NAMES, distinct_texts, list_cells, name_cell
from fcnlab.report.tables.columns import find_column, format_points, name_class_metrics, split_class_column
from fcnlab.report.tables.names import EPOCHS, join_names, quote_name
from fcnlab.report.tables.table import Table
from fcnlab.report.trial_records import TrialRecords
from fcnlab.trial.comparability import find_fold
from fcnlab.trial.record import Record, SplitMetrics

if TYPE_CHECKING:
    from fcnlab.report.report import Report

CHECKPOINT_GAP = 0.01
"""Difference in mIoU between the last and the best epoch from which a footnote gives it."""


CLASS_MEANS = frozenset({"mean_acc", "boundary_iou", "dice"})
"""Columns of means over the same classes as mIoU."""


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


def describe_evaluation(grid: Grid, finished: pd.DataFrame, records: TrialRecords, metrics: Sequence[str]) -> list[str]:
    """Describe the split, the checkpoint and the metrics from summed counts.

    Args:
        grid: the grid.
        finished: frame of the finished trials.
        records: records of the finished trials.
        metrics: descriptions of the metrics.
    """
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


def describe_class_columns(names: Names, columns: Collection[str], pivoted: Table | None) -> list[str]:
    """Name the metric and the unit of columns that are headed by the name of a class.

    Args:
        names: display names.
        columns: names of the shown columns.
        pivoted: the table if it is pivoted.
    """
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


def describe_means(report: Report, columns: Collection[str], *, miou: bool) -> list[str]:
    """Name the classes without a labeled pixel if a column is a mean over classes.

    Args:
        report: report of the grid.
        columns: names of the shown columns.
        miou: a column is about mIoU.
    """
    if miou:
        return describe_class_sets(report)
    return [] if CLASS_MEANS.isdisjoint(columns) else describe_class_sets(report, "Means of classes", "are")


def describe_class_sets(report: Report, noun: str = "mIoU", verb: str = "is the mean") -> list[str]:
    """Name the classes without a labeled pixel in an evaluated split, which are in no mean over classes.

    Args:
        report: report of the grid.
        noun: the subject of the sentences.
        verb: their verb.

    Returns:
        One sentence per set of classes and evaluated split, and one for all folds of a cross-validation; none if all
        classes have labeled pixels.
    """
    found = [(record, metrics) for record, metrics in _reported_metrics(report.records) if metrics.miou is not None]
    several = len({record.trial["names"].get("dataset") for record, _ in found}) > 1
    folds: dict[str, dict[tuple[int, ...], list[str]]] = {}
    lines: dict[tuple[str, bool], list[str]] = {}  # by dataset and whether it is divided into folds
    for record, metrics in found:
        where = f" of {record.trial['names'].get('dataset')}" if several else ""
        classes = zip(record.classes, metrics.class_iou, strict=True)
        absent = [report.names.classes.get(name, name) for name, iou in classes if iou is None]
        fold = find_fold(record)
        if fold is not None:
            folds.setdefault(where, {})[*fold, record.trial["dataset"]["cross_validation"]["folds"]] = absent
        if absent:
            labeled = f"{len(metrics.class_iou) - len(absent)} of {len(metrics.class_iou)}"
            lines.setdefault((where, fold is not None), []).append(
                f"{noun} {verb} over {labeled} classes: {join_names(_shorten(absent))} "
                f"{'has' if len(absent) == 1 else 'have'} no pixel in {record.report_split}{where}."
            )
    for where, by_fold in folds.items():
        if (where, True) in lines and len(by_fold) > 1:
            counts = Counter(chain.from_iterable(by_fold.values())).most_common()
            texts = [f"{name} has no pixel in {number} of {len(by_fold)} folds" for name, number in counts]
            lines[where, True] = [
                f"{noun} of a fold {verb} over its labeled classes: {join_names(_shorten(texts))}{where}."
            ]
    return list(dict.fromkeys(chain.from_iterable(lines.values())))


def _shorten(texts: list[str]) -> list[str]:
    """Replace the last texts by their number if there are many."""
    return texts if len(texts) <= MAX_NAMES else [*texts[: MAX_NAMES - 1], f"{len(texts) - MAX_NAMES + 1} more"]


def _reported_metrics(records: TrialRecords) -> Iterator[tuple[Record, SplitMetrics]]:
    """Yield each record with its metrics of the reported split."""
    for record in chain.from_iterable(by_seed.values() for by_seed in records.by_cell.values()):
        metrics = record.find_metrics(record.report_split, records.checkpoint)
        if metrics is not None:
            yield record, metrics


def describe_checkpoints(grid: Grid, cells: pd.DataFrame, finished: pd.DataFrame) -> list[str]:
    """List the cells whose mIoU differs much between the last and the best epoch.

    On val, the best epoch is better by selection. The difference is then given only where the best epoch is reported.

    Args:
        grid: the grid.
        cells: frame with one row per cell.
        finished: frame of the finished trials.
    """
    if grid.file.checkpoint == "last" and (finished["report_split"] != "test").any():
        return []
    reported, other = ("best", "last") if grid.file.checkpoint == "best" else ("last", "best")
    gaps = zip(cells["cell"], cells[f"miou_{other}"] - cells[f"miou_{reported}"], strict=True)
    texts = [
        f"{name_cell(grid, str(cell))} {format_points(float(gap))}" for cell, gap in gaps if abs(gap) >= CHECKPOINT_GAP
    ]
    if not texts:
        return []
    return [f"At {EPOCHS[other]} instead, mIoU differs by {100 * CHECKPOINT_GAP:g} point or more: {list_cells(texts)}."]
