"""Holm's correction of p-values for multiple comparisons."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fcnlab.analysis.intervals import CONFIDENCE
from fcnlab.metrics.summary import Floats


def adjust_p_values(p_values: Sequence[float] | Floats) -> Floats:
    """Adjust p-values by Holm's step-down procedure (Scandinavian Journal of Statistics 6, 1979).

    Rejecting every comparison with an adjusted p-value below a level bounds the probability of any false rejection by
    that level, for any dependence between the comparisons. The i-th smallest of m p-values is multiplied by m - i + 1;
    adjusted p-values keep the order of the p-values and are at most 1.

    Args:
        p_values: p-values [comparisons]; NaN for a comparison that is not part of the family.

    Returns:
        Adjusted p-values [comparisons], float64; NaN where the p-value is NaN.

    Example:
        >>> adjust_p_values([0.01, 0.04, 0.02]).tolist()
        [0.03, 0.04, 0.04]
    """
    p = np.asarray(p_values, dtype=np.float64)
    adjusted = np.full_like(p, np.nan)
    valid = np.flatnonzero(~np.isnan(p))
    order = valid[np.argsort(p[valid], kind="stable")]
    factors = np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(factors * p[order]))
    return adjusted


def is_significant(adjusted_p: float) -> bool | None:
    """Return whether a difference is significant; None if no claim is made.

    Args:
        adjusted_p: p-value after Holm's correction; NaN where no claim is made.
    """
    return None if np.isnan(adjusted_p) else bool(adjusted_p < 1 - CONFIDENCE)
