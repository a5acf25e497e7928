"""Read every pair of a dataset and say all that is wrong with it, at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fcnlab.data.base import Dataset
from fcnlab.errors import DataError


@dataclass
class Checked:
    """What one split holds: how many images, pixels by label (256 of them), and its faults."""

    split: str
    images: int = 0
    pixels: NDArray[np.int64] = field(default_factory=lambda: np.zeros(256, dtype=np.int64))
    faults: list[str] = field(default_factory=list)


def check_splits(dataset: Dataset, splits: Iterable[str]) -> Iterator[Checked]:
    """Check each split in turn; samples that stand in two of them are a fault of the later."""
    seen: dict[str, str] = {}
    for name in splits:
        checked = Checked(name)
        try:
            split = dataset.split(name)
        except DataError as error:
            checked.faults.append(str(error))
            yield checked
            continue
        checked.images = len(split)
        for index, id_ in enumerate(split.ids):
            if id_ in seen:
                checked.faults.append(f"'{id_}' stands in {seen[id_]} and again in {name}")
            seen[id_] = name
            try:
                checked.pixels += np.bincount(split[index].label.ravel(), minlength=256)
            except DataError as error:
                checked.faults.append(str(error))
        yield checked
