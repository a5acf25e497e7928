"""A few figures about a few figures."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Spread:
    """Mean, sample standard deviation (n - 1; nan for one), number, median and range."""

    mean: float
    std: float
    n: int
    median: float
    low: float
    high: float


def summary(values: Iterable[float]) -> Spread:
    """Say how values spread, such as the mIoU of a cell's seeds. A nan is left out; of nothing, all are nan and n 0."""
    given = np.fromiter(values, dtype=np.float64)
    x = given[~np.isnan(given)]
    if not x.size:
        return Spread(np.nan, np.nan, 0, np.nan, np.nan, np.nan)
    std = float(x.std(ddof=1)) if x.size > 1 else np.nan
    return Spread(float(x.mean()), std, x.size, float(np.median(x)), float(x.min()), float(x.max()))
