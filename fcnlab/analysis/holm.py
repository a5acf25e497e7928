"""Many comparisons with one baseline."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fcnlab.analysis.resampling import Floats


def holm(p_values: Sequence[float] | Floats) -> Floats:
    """Adjust p-values so that one may call significant all below a level, with that chance of any false one.

    Holm's step-down procedure (Scandinavian Journal of Statistics 6, 1979), which assumes nothing on how the
    comparisons depend on one another. The i-th smallest of m is multiplied by m - i + 1, none is below one before it,
    and none above 1. The order is kept. A nan stays one and does not count.
    """
    p = np.asarray(p_values, dtype=np.float64)
    adjusted = np.full_like(p, np.nan)
    there = np.flatnonzero(~np.isnan(p))
    order = there[np.argsort(p[there], kind="stable")]
    factors = np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(factors * p[order]))
    return adjusted
