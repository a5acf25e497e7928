"""Power analysis: the number of seeds that are needed to find a difference."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import chdtri, ndtr, stdtrit

from fcnlab.analysis.differences import Difference
from fcnlab.analysis.intervals import MIN_SEEDS, degrees_of_freedom
from fcnlab.errors import RunError

_MAX_SEEDS = 2**20
_MIDPOINTS = (np.arange(2000) + 0.5) / 2000


@dataclass(frozen=True)
class SeedPlan:
    """Number of seeds that are needed to find a true difference between two cells. For planning, not evidence.

    Attributes:
        difference: the true difference in mIoU, a fraction of 1.
        power: probability of finding it.
        level: two-sided level of the test.
        have: number of seeds so far.
        seeds: total number of seeds needed for the observed spread; None where no number is enough or none can be
            computed.
        cautious: the same for the upper 80 % limit of the spread, since few seeds give a rough estimate of it.
        smallest: smallest difference that can be found on these images with any number of seeds.
    """

    difference: float
    power: float
    level: float
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
        """Caveat of the plan, in one sentence."""
        if np.isnan(self.smallest) or self.have < 2:
            return "nothing can be planned from one seed or one image: run at least two seeds"
        if self.seeds is None:
            return (
                "no number of seeds is enough: the variance of images hides a difference below "
                f"{100 * self.smallest:.2f} points; evaluate on more images"
            )
        return "planning from the observed spread; report seeds that are added after looking at a result"


def plan_seeds(observed: Difference, difference: float, *, power: float = 0.8, level: float = 0.05) -> SeedPlan:
    """Compute the number of seeds with which a true difference is found. For planning, not evidence.

    The test is that of `fcnlab.analysis.intervals`, its power that of a noncentral t; the result is the smallest number
    of seeds, at least `MIN_SEEDS`, with enough power. `cautious` uses the upper one-sided 80 % limit of the seed
    variance (Browne, Statistics in Medicine 14, 1995). The image variance does not decrease with more seeds; where it
    is too large, `seeds` is None and `note` names the smallest difference that can be found.

    Args:
        observed: paired difference of the two cells so far; its variances are used, its value is not.
        difference: the true difference in mIoU to be found, a fraction of 1.
        power: probability of finding it.
        level: two-sided level of the test.

    Raises:
        RunError: `difference` is not above 0, or 0 < level < power < 1 does not hold.
    """
    if not difference > 0 or not 0 < level < power < 1:
        raise RunError(
            f"difference is {difference}, power {power}, level {level}; "
            "valid: a difference above 0, such as 0.005 for half a point, and 0 < level < power < 1"
        )
    if observed.seeds < 2 or not np.isfinite(observed.std_error):
        return SeedPlan(difference, power, level, observed.seeds, None, None, float("nan"))
    free = observed.seeds - 1
    upper = observed.seed_variance * free / float(chdtri(free, 0.8))
    target = _Target(difference, power, level, observed.image_variance, observed.effective_images)
    return SeedPlan(
        difference=difference,
        power=power,
        level=level,
        have=observed.seeds,
        seeds=target.find_seeds(observed.seed_variance),
        cautious=target.find_seeds(upper),
        smallest=target.find_smallest(),
    )


@dataclass(frozen=True)
class _Target:
    """The difference to be found, the required power, and the variance of the images."""

    difference: float
    power: float
    level: float
    image_variance: float
    effective: float

    def find_seeds(self, seed_variance: float) -> int | None:
        """Find the smallest sufficient number of seeds by doubling and bisection."""
        if _compute_power(self.difference, self.image_variance, self.effective - 1, self.level) < self.power:
            return None
        enough = MIN_SEEDS
        while not self._suffices(enough, seed_variance):
            enough *= 2
            if enough > _MAX_SEEDS:  # the power is reached in the limit only
                return None
        too_few = MIN_SEEDS - 1 if enough == MIN_SEEDS else enough // 2
        while enough - too_few > 1:
            middle = (enough + too_few) // 2
            if self._suffices(middle, seed_variance):
                enough = middle
            else:
                too_few = middle
        return enough

    def find_smallest(self) -> float:
        """Find the smallest difference that unlimited seeds find, by doubling and bisection."""

        def suffices(difference: float) -> bool:
            return _compute_power(difference, self.image_variance, self.effective - 1, self.level) >= self.power

        low, high = 0.0, float(np.sqrt(self.image_variance))
        while not suffices(high):
            low, high = high, 2 * high
        for _ in range(40):
            middle = (low + high) / 2
            low, high = (low, middle) if suffices(middle) else (middle, high)
        return high

    def _suffices(self, seeds: int, seed_variance: float) -> bool:
        seed_part = seed_variance / seeds
        variances = np.asarray(self.image_variance), np.asarray(seed_part)
        dof = float(degrees_of_freedom(*variances, np.asarray(self.effective), seeds))
        return _compute_power(self.difference, self.image_variance + seed_part, dof, self.level) >= self.power


def _compute_power(difference: float, variance: float, dof: float, level: float) -> float:
    """Compute the power of a two-sided t test.

    Integrates over the observed standard error, whose square is chi-squared: scipy's noncentral t is NaN in parts of
    its range.
    """
    if variance == 0:
        return 1.0
    shift = difference / np.sqrt(variance)
    critical = stdtrit(dof, 1 - level / 2) * np.sqrt(chdtri(dof, _MIDPOINTS) / dof)
    return float((ndtr(shift - critical) + ndtr(-shift - critical)).mean())
