"""Power analysis: the number of seeds that are needed to find a difference."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass

import numpy as np
from scipy.special import chdtri, ndtr, stdtrit

from fcnlab.analysis.differences import Difference
from fcnlab.analysis.intervals import CONFIDENCE, MIN_SEEDS, degrees_of_freedom
from fcnlab.errors import RunError

POWER = 0.8
"""Probability with which a planned number of seeds finds the difference."""

_MAX_SEEDS = 2**20
_MIDPOINTS = (np.arange(2000) + 0.5) / 2000


@dataclass(frozen=True)
class SeedPlan:
    """Number of seeds that are needed to find a true difference between two cells. For planning, not evidence.

    Attributes:
        have: number of seeds so far.
        seeds: total number of seeds needed for the observed spread; None where no number is enough or none can be
            computed.
        cautious: the same for the upper 80 % limit of the spread, since few seeds give a rough estimate of it.
        smallest: smallest difference that can be found on these images with any number of seeds, a fraction of 1.
    """

    have: int
    seeds: int | None
    cautious: int | None
    smallest: float

    @property
    def more(self) -> int | None:
        """Number of additional seeds needed."""
        return None if self.seeds is None else max(0, self.seeds - self.have)

    @property
    def note(self) -> str:
        """Reason why there is no number of seeds, in one sentence; empty if there is one."""
        if self.seeds is not None:
            return ""
        if np.isnan(self.smallest):
            if self.have < 2:
                return "nothing can be planned from one seed: run at least two seeds"
            return "nothing can be planned from one image, nor from a cross-validation"
        return (
            "no number of seeds is enough: the variance of images hides a difference below "
            f"{100 * self.smallest:.2f} points; evaluate on more images"
        )


def plan_seeds(observed: Difference, difference: float) -> SeedPlan:
    """Compute the number of seeds with which a true difference is found. For planning, not evidence.

    The test is that of `fcnlab.analysis.intervals`, its power that of a noncentral t; the result is the smallest number
    of seeds, at least `MIN_SEEDS`, with a power of `POWER`. `cautious` uses the upper one-sided 80 % limit of the seed
    variance (Browne, Statistics in Medicine 14, 1995). The image variance does not decrease with more seeds; where it
    is too large, `seeds` is None and `note` names the smallest difference that can be found.

    Args:
        observed: paired difference of the two cells so far; its variances are used, its value is not.
        difference: the true difference in mIoU to be found, a fraction of 1.

    Raises:
        RunError: `difference` is not above 0.
    """
    if not difference > 0:
        raise RunError(f"difference is {difference}; valid: a difference above 0, such as 0.005 for half a point")
    if observed.seeds < 2 or not np.isfinite(observed.std_error + observed.image_variance):
        return SeedPlan(observed.seeds, None, None, float("nan"))
    free = observed.seeds - 1
    upper = observed.seed_variance * free / float(chdtri(free, 0.8))
    return SeedPlan(
        have=observed.seeds,
        seeds=_find_seeds(observed, difference, observed.seed_variance),
        cautious=_find_seeds(observed, difference, upper),
        smallest=_find_smallest(observed),
    )


def _find_seeds(observed: Difference, difference: float, seed_variance: float) -> int | None:
    """Find the smallest sufficient number of seeds; None if no number is enough."""

    def suffices(seeds: int) -> bool:
        seed_part = seed_variance / seeds
        parts = np.asarray(observed.image_variance), np.asarray(seed_part)
        dof = float(degrees_of_freedom(*parts, np.asarray(observed.effective_images), seeds))
        return _compute_power(difference, observed.image_variance + seed_part, dof) >= POWER

    if _compute_power(difference, observed.image_variance, observed.effective_images - 1) < POWER:
        return None
    enough = MIN_SEEDS
    while not suffices(enough):
        enough *= 2
        if enough > _MAX_SEEDS:  # the power is reached in the limit only
            return None
    numbers = range(MIN_SEEDS if enough == MIN_SEEDS else enough // 2 + 1, enough)
    return numbers.start + bisect_left(numbers, True, key=suffices)


def _find_smallest(observed: Difference) -> float:
    """Find the smallest difference that unlimited seeds find, by doubling and bisection."""

    def suffices(difference: float) -> bool:
        return _compute_power(difference, observed.image_variance, observed.effective_images - 1) >= POWER

    low, high = 0.0, float(np.sqrt(observed.image_variance))
    while not suffices(high):
        low, high = high, 2 * high
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (low, middle) if suffices(middle) else (middle, high)
    return high


def _compute_power(difference: float, variance: float, dof: float) -> float:
    """Compute the power of a two-sided t test at the level 1 - `CONFIDENCE`.

    Integrates over the observed standard error, whose square is chi-squared: scipy's noncentral t is NaN in parts of
    its range.
    """
    if variance == 0:
        return 1.0
    shift = difference / np.sqrt(variance)
    critical = stdtrit(dof, (1 + CONFIDENCE) / 2) * np.sqrt(chdtri(dof, _MIDPOINTS) / dof)
    return float((ndtr(shift - critical) + ndtr(-shift - critical)).mean())
