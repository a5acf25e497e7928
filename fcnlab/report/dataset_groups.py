"""The cells of a grid by dataset: differences, bold cells and Pareto fronts are within one dataset."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from itertools import chain

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fcnlab.analysis import CellCounts, count_class_images, select_folds
from fcnlab.config.dataset import CrossValidation
from fcnlab.config.grid.grid import Grid
from fcnlab.report.trial_records import TrialRecords
from fcnlab.trial.record import Record


@dataclass(frozen=True)
class DatasetGroup:
    """The cells of a dataset, and of other datasets that are evaluated on the same images.

    Attributes:
        name: display name of the datasets.
        baseline: label of the cell with which the others are compared.
        cells: labels of the cells, in the order of the grid.
        reference: label of the baseline, or of the cell with the highest mIoU if no trial of the baseline has finished;
            empty where no trial has finished.
        same: labels of the cells that were evaluated on the same images, labels and classes as the reference.
        others: labels of the other cells with finished trials.
        folds: the cross-validation, in which each seed has the images of another fold; None if all seeds have the same.
    """

    name: str
    baseline: str
    cells: tuple[str, ...]
    reference: str
    same: frozenset[str]
    others: tuple[str, ...]
    folds: CrossValidation | None = None


def find_groups(grid: Grid, trials: pd.DataFrame, records: TrialRecords) -> tuple[DatasetGroup, ...]:
    """Group the cells of a grid by dataset, the dataset of the grid's baseline first.

    Datasets with different names are one group if they are evaluated on the same images, such as those that differ in
    the training images only.

    Args:
        grid: the grid.
        trials: frame with one row per trial.
        records: records of the finished trials.

    Raises:
        RunError: a trial's counts are damaged.
    """
    by_dataset = {name: [cell.label for cell in cells] for name, cells in grid.cells_by_dataset.items()}
    mean_miou = trials[trials["status"] == "finished"].groupby("cell", sort=False)["miou"].mean().dropna()
    groups = []
    while by_dataset:
        name = next(iter(by_dataset))
        baseline = grid.baselines[name].label
        ranked = mean_miou[mean_miou.index.isin(records.by_cell.keys() & set(by_dataset[name]))]
        best = "" if ranked.empty else str(ranked.idxmax())
        reference = baseline if baseline in records.by_cell else best
        folds = grid.baselines[name].dataset.folds_by_seed
        same = find_same_images(records, reference, list(chain.from_iterable(by_dataset.values())), folds)
        names = [other for other, cells in by_dataset.items() if other == name or not same.isdisjoint(cells)]
        labels = {cell for other in names for cell in by_dataset.pop(other)}
        groups.append(
            DatasetGroup(
                name=" and ".join(grid.file.labels.name_value("dataset", name) for name in names),
                baseline=baseline,
                cells=tuple(cell.label for cell in grid.cells if cell.label in labels),
                reference=reference,
                same=same,
                others=tuple(cell for cell in records.by_cell if cell in labels - same),
                folds=folds,
            )
        )
    return tuple(groups)


def find_same_images(
    records: TrialRecords, reference: str, cells: Collection[str], folds: CrossValidation | None = None
) -> frozenset[str]:
    """Find the cells whose trials were all evaluated on the same images, labels and classes as a reference.

    In a cross-validation, trials with the same seed are compared. Trials without counts are compared by the fingerprint
    of their data and by their split.

    Args:
        records: records of the finished trials.
        reference: label of the cell that the others are compared with.
        cells: labels of the cells to compare.
        folds: the cross-validation; None if all seeds have the same images.

    Returns:
        The labels, including the reference; none if the reference has no finished trial.

    Raises:
        RunError: a trial's counts are damaged.
    """
    if reference not in records.by_cell:
        return frozenset()

    counted, finished = records.counts(reference), records.by_cell[reference]
    first = min(counted or finished)
    seeds = [first] if folds is None else list(finished)
    expected = {seed: _read_images(records, reference, seed, counted) for seed in seeds}

    def is_same(cell: str) -> bool:
        counts = records.counts(cell)
        return all(
            _are_same(_read_images(records, cell, seed, counts), images)
            for seed in records.by_cell[cell]
            if (images := expected.get(first if folds is None else seed)) is not None
        )

    return frozenset(cell for cell in cells if cell in records.by_cell and (cell == reference or is_same(cell)))


def count_images(group: DatasetGroup, records: TrialRecords) -> dict[int, int]:
    """Return the number of images in which each class of a dataset is labeled; empty without counts.

    Args:
        group: the cells of the dataset.
        records: records of the finished trials.
    """
    for cell in group.same:
        if counts := records.counts(cell):
            return dict(enumerate(count_class_images(counts, select_folds(counts, group.folds)).tolist()))
    return {}


@dataclass(frozen=True)
class _Images:
    """The images on which a trial was evaluated.

    Attributes:
        record: the record of the trial.
        ids: ids of the images; None without counts.
        labels: labeled pixels, [images, num_classes]; None without counts.
    """

    record: Record
    ids: tuple[str, ...] | None
    labels: NDArray[np.int64] | None


def _read_images(records: TrialRecords, cell: str, seed: int, counts: CellCounts) -> _Images:
    record = records.by_cell[cell][seed]
    if seed not in counts:
        return _Images(record, None, None)
    return _Images(record, records.ids(cell, seed), counts[seed][..., 2])


def _are_same(one: _Images, other: _Images) -> bool:
    if one.record.classes != other.record.classes:
        return False
    if one.labels is None or other.labels is None:
        return _describe_split(one.record) == _describe_split(other.record)
    return one.ids == other.ids and np.array_equal(one.labels, other.labels)


def _describe_split(record: Record) -> tuple[object, ...]:
    """Return the fingerprint of a trial's data and the split on which it is reported."""
    return record.trial["data"], record.trial["dataset"]["splits"], record.report_split
