"""The cells that were evaluated on the same images, which can be compared and shown side by side."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fcnlab.report.trial_records import TrialRecords
from fcnlab.trial.record import Record


@dataclass(frozen=True)
class EvaluatedImages:
    """The cells of a grid by the images on which they were evaluated.

    Attributes:
        reference: label of the cell that the others are compared with; empty where no trial has finished.
        cells: labels of the cells with the same images, labels and classes as the reference, including the reference.
        others: labels of the other cells with finished trials.
    """

    reference: str = ""
    cells: frozenset[str] = frozenset()
    others: tuple[str, ...] = ()


def find_evaluated_images(records: TrialRecords, reference: str) -> EvaluatedImages:
    """Find the cells whose trials were all evaluated on the same images, labels and classes as a reference.

    Trials without counts are compared by the fingerprint of their data and by their split.

    Args:
        records: records of the finished trials.
        reference: label of the cell that the others are compared with.

    Returns:
        The cells; none if the reference has no finished trial.

    Raises:
        RunError: a trial's counts are damaged.
    """
    if reference not in records.by_cell:
        return EvaluatedImages()
    counts = records.counts(reference)
    first = min(counts or records.by_cell[reference])
    record = records.by_cell[reference][first]
    ids, labels = (records.ids(reference, first), counts[first][..., 2]) if counts else (None, None)

    def is_same(cell: str) -> bool:
        counts = records.counts(cell)
        for seed, other in records.by_cell[cell].items():
            if other.classes != record.classes:
                return False
            if labels is None or seed not in counts:
                if _describe_split(other) != _describe_split(record):
                    return False
            elif records.ids(cell, seed) != ids or not np.array_equal(counts[seed][..., 2], labels):
                return False
        return True

    same = frozenset(cell for cell in records.by_cell if cell == reference or is_same(cell))
    return EvaluatedImages(reference, same, tuple(cell for cell in records.by_cell if cell not in same))


def _describe_split(record: Record) -> tuple[object, ...]:
    """Return the fingerprint of a trial's data and the split on which it is reported."""
    return record.trial["data"], record.trial["dataset"]["splits"], record.report_split
