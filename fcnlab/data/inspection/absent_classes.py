"""Classes without a pixel in a split: errors of the training split, warnings of the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fcnlab.data.cache.label_counts import LabelCounts, load_label_counts
from fcnlab.data.datasets.base import Dataset
from fcnlab.errors import DataError, list_some

SHOWN = 10
"""Maximum number of classes that an error lists."""

AbsentClasses = Mapping[tuple[str, ...], Sequence[str]]
"""The names of the classes without a pixel, by the splits in which they have none."""


def find_absent_classes(classes: Sequence[str], counts: Mapping[str, LabelCounts]) -> AbsentClasses:
    """Return the classes without a pixel in a split.

    Args:
        classes: names of the classes, in the order of the labels.
        counts: number of pixels of each label, int64 [256], by split.
    """
    absent: dict[tuple[str, ...], list[str]] = {}
    for label, name in enumerate(classes):
        splits = tuple(split for split, pixels in counts.items() if not pixels[label])
        if splits:
            absent.setdefault(splits, []).append(name)
    return absent


def load_absent_classes(dataset: Dataset, splits: Sequence[str]) -> AbsentClasses:
    """Return the classes without a pixel in the splits that have been read before; no image is read.

    Args:
        dataset: the dataset.
        splits: names of the splits.

    Raises:
        DataError: a split or one of its files is missing.
    """
    known = {split: load_label_counts(dataset, split) for split in splits}
    return find_absent_classes(
        dataset.classes, {split: counts for split, counts in known.items() if counts is not None}
    )


def describe_absence(names: Sequence[str], splits: Sequence[str]) -> str:
    """Describe the absence of classes.

    Args:
        names: names of the classes.
        splits: splits in which they have no pixel.

    >>> describe_absence(["truck"], ["val", "test"])
    'truck: no pixel in val, test'
    """
    return f"{list_some(names, SHOWN)}: no pixel in {', '.join(splits)}"


def check_absent_classes(absent: AbsentClasses, train: str, where: str) -> list[str]:
    """Refuse classes without a pixel in the training split, and return warnings about the others.

    Args:
        absent: the classes without a pixel in a split.
        train: name of the training split.
        where: start of the error, such as the name of the dataset.

    Raises:
        DataError: a class has no pixel in the training split.
    """
    untrained = [describe_absence(names, splits) for splits, names in absent.items() if train in splits]
    if untrained:
        raise DataError(f"{where}: {'; '.join(untrained)}; {REMEDY}")
    return [f"{describe_absence(names, splits)}; {CONSEQUENCE}" for splits, names in absent.items()]


REMEDY = (
    "a class needs pixels to train on: check its mask value, leave the class out, merge it with another one, or choose "
    "other splits (such as another seed of random splits)"
)
"""Instruction for a class without a pixel in the training split."""

CONSEQUENCE = "a class without a labeled pixel has no IoU there"
"""Explanation of a class without a pixel in another split."""
