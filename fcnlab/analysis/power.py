"""Planning: how many seeds a difference would take."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import chdtri, ndtr, stdtrit  # type: ignore[import-untyped]

from fcnlab.analysis.estimate import CLAIM_SEEDS, Estimate, degrees_of_freedom
from fcnlab.errors import RunError

_MOST_SEEDS = 2**20
_MIDPOINTS = (np.arange(2000) + 0.5) / 2000


@dataclass(frozen=True)
class SeedPlan:
    """What it would take to tell two cells apart. Planning, not evidence: seeds added after looking are marked."""

    difference: float
    """The true difference that is to be found; a fraction of 1."""
    power: float
    level: float
    have: int
    """Seeds that there are."""
    seeds: int | None
    """Seeds needed in all, at the spread that was observed; None where no number is enough or none can be said."""
    cautious: int | None
    """The same at the upper 80 % limit of that spread: the spread of a few seeds is itself a rough figure."""
    smallest: float
    """The smallest difference that can be found on these images however many seeds there are."""

    @property
    def more(self) -> int | None:
        """Seeds needed beyond those that there are."""
        return None if self.seeds is None else max(0, self.seeds - self.have)

    @property
    def note(self) -> str:
        """What a reader of the plan must know, in one sentence."""
        if np.isnan(self.smallest) or self.have < 2:
            return "nothing can be planned from one seed or one image: run two seeds at least"
        if self.seeds is None:
            return (
                "no number of seeds is enough: the choice of images alone hides a difference below "
                f"{100 * self.smallest:.2f} points; score on more images"
            )
        return "planning from the spread observed so far; seeds added after looking are to be marked as such"


def plan_seeds(observed: Estimate, difference: float, *, power: float = 0.8, level: float = 0.05) -> SeedPlan:
    """Plan how many seeds find a true `difference` (a fraction of 1) of two cells. For planning, never as evidence.

    `observed` is their paired difference so far, of which the spread between seeds and the image variance are taken
    and not its value. With S seeds the test is that of `fcnlab.analysis.estimate`, and its power is that of a
    noncentral t; the number is the smallest, of three at least, with which it reaches `power` at the two-sided
    `level`. `cautious` puts the upper one-sided 80 % limit of the seed variance in its place (Browne, Statistics in
    Medicine 14, 1995). Image variance remains however many seeds there are; where it alone is too large, `seeds` is
    None and `note` says from which difference on something could be found.

    Raises RunError unless `difference` is above 0, and `power` and `level` are between 0 and 1, power above level.
    """
    if not difference > 0 or not 0 < level < power < 1:
        raise RunError(
            f"difference is {difference}, power {power}, level {level}; "
            "valid: a difference above 0, as 0.005 for half a point, and 0 < level < power < 1"
        )
    if observed.seeds < 2 or not np.isfinite(observed.std_error):
        return SeedPlan(difference, power, level, observed.seeds, None, None, float("nan"))
    free = observed.seeds - 1
    upper = observed.seed_variance * free / float(chdtri(free, 0.8))
    target = _Target(difference, power, level, observed.image_variance, observed.effective_images)
    return SeedPlan(
        difference,
        power,
        level,
        observed.seeds,
        target.seeds(observed.seed_variance),
        target.seeds(upper),
        target.smallest(),
    )


@dataclass(frozen=True)
class _Target:
    difference: float
    power: float
    level: float
    image_variance: float
    effective: float

    def seeds(self, seed_variance: float) -> int | None:
        """The smallest number of seeds that reaches the power: doubled until enough, then halved in between."""
        if self._power(self.image_variance, self.effective - 1) < self.power:
            return None
        enough = CLAIM_SEEDS
        while not self._suffices(enough, seed_variance):
            enough *= 2
            if enough > _MOST_SEEDS:  # the limit is met only at infinity
                return None
        too_few = CLAIM_SEEDS - 1 if enough == CLAIM_SEEDS else enough // 2
        while enough - too_few > 1:
            middle = (enough + too_few) // 2
            if self._suffices(middle, seed_variance):
                enough = middle
            else:
                too_few = middle
        return enough

    def smallest(self) -> float:
        """The difference that unlimited seeds find with just this power: doubled until enough, then halved."""

        def reached(difference: float) -> bool:
            return _power(difference, self.image_variance, self.effective - 1, self.level) >= self.power

        low, high = 0.0, float(np.sqrt(self.image_variance))
        while not reached(high):
            low, high = high, 2 * high
        for _ in range(40):
            middle = (low + high) / 2
            low, high = (low, middle) if reached(middle) else (middle, high)
        return high

    def _suffices(self, seeds: int, seed_variance: float) -> bool:
        parts = np.asarray(self.image_variance), np.asarray(seed_variance / seeds)
        dof = float(degrees_of_freedom(*parts, np.asarray(self.effective), seeds))
        return self._power(self.image_variance + seed_variance / seeds, dof) >= self.power

    def _power(self, variance: float, dof: float) -> float:
        return _power(self.difference, variance, dof, self.level)


def _power(difference: float, variance: float, dof: float, level: float) -> float:
    """The chance that a two-sided t test finds a true difference.

    The mean over the standard error that is observed, of which the square is chi squared: scipy's noncentral t is nan
    in parts of its range.
    """
    if variance == 0:
        return 1.0
    shift = difference / np.sqrt(variance)
    critical = stdtrit(dof, 1 - level / 2) * np.sqrt(chdtri(dof, _MIDPOINTS) / dof)
    return float((ndtr(shift - critical) + ndtr(-shift - critical)).mean())
