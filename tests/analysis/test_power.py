"""Seed plans, checked against known sample sizes, simulated tests and properties."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fcnlab.analysis import ClassDifferences, Difference, plan_seeds
from fcnlab.errors import RunError

quick = settings(deadline=None, max_examples=50)


def observed(seeds: int, image_variance: float, seed_variance: float, effective: float = 1000.0) -> Difference:
    """Return a paired difference with these variances, which are all that a plan uses."""
    error = math.sqrt(image_variance + (seed_variance if seeds > 1 else 0) / seeds)
    by_seed = dict.fromkeys(range(seeds), 0.0)
    none = np.zeros(0)
    return Difference(
        value=0.0, low=0.0, high=0.0, std_error=error, p_value=1.0, images=1449,
        effective_images=effective, by_seed=by_seed, image_variance=image_variance, seed_variance=seed_variance,
        classes=ClassDifferences(none, none, none, none, none.astype(np.int64)),
    )  # fmt: skip


@pytest.mark.parametrize(("effect", "seeds"), [(0.5, 34), (0.8, 15), (1.0, 10)])
def test_without_image_variance_matches_the_sample_size_of_a_paired_t_test(effect: float, seeds: int) -> None:
    """The expected numbers are those of G*Power for a two-sided paired t test at 0.05 with 80 % power."""
    plan = plan_seeds(observed(3, 0.0, 0.01**2), effect * 0.01)
    assert (plan.seeds, plan.more) == (seeds, seeds - 3)


def test_planned_seeds_reach_the_power_in_a_simulation() -> None:
    image, seed, difference, effective = 0.002**2, 0.008**2, 0.01, 200.0
    plan = plan_seeds(observed(3, image, seed, effective), difference)
    assert plan.seeds is not None
    found = [_simulated_power(n, image, seed, difference) for n in (plan.seeds - 1, plan.seeds)]
    assert found[0] < 0.8 + 0.02
    assert found[1] > 0.8 - 0.02


def _simulated_power(seeds: int, image: float, seed: float, difference: float) -> float:
    from scipy import stats

    random = np.random.default_rng(0)
    values = difference + np.sqrt(seed) * random.standard_normal((20_000, seeds))
    values += np.sqrt(image) * random.standard_normal((20_000, 1))
    part = values.var(1, ddof=1) / seeds
    share = part / (part + image)
    dof = 1 / (share / (seeds - 1) + (1 - share) / 199)
    return float((np.abs(values.mean(1)) > stats.t.ppf(0.975, dof) * np.sqrt(part + image)).mean())


def test_reports_when_the_image_variance_makes_it_impossible() -> None:
    plan = plan_seeds(observed(3, 0.01**2, 0.001**2), 0.01)
    assert (plan.seeds, plan.cautious, plan.more) == (None, None, None)
    assert "no number of seeds is enough" in plan.note
    assert f"{100 * plan.smallest:.2f} points" in plan.note
    assert plan.smallest == pytest.approx((1.962 + 0.842) * 0.01, rel=0.01)
    assert plan_seeds(observed(3, 0.01**2, 0.001**2), plan.smallest * 1.01).seeds is not None


@quick
@given(st.floats(0.001, 0.02), st.floats(0, 0.005), st.floats(0.001, 0.02), st.floats(1.05, 3))
def test_larger_difference_or_smaller_spread_needs_no_more_seeds(
    difference: float, image: float, seed: float, times: float
) -> None:
    plan = plan_seeds(observed(4, image**2, seed**2), difference)
    assume(plan.seeds is not None)
    assert plan.seeds is not None
    assert plan.seeds >= 3
    assert plan.cautious is None or plan.cautious >= plan.seeds
    for easier in (
        plan_seeds(observed(4, image**2, seed**2), difference * times),
        plan_seeds(observed(4, image**2, (seed / times) ** 2), difference),
        plan_seeds(observed(4, (image / times) ** 2, seed**2), difference),
    ):
        assert easier.seeds is not None
        assert easier.seeds <= plan.seeds


def test_one_seed_gives_no_plan() -> None:
    plan = plan_seeds(observed(1, 0.001**2, math.nan), 0.01)
    assert (plan.seeds, plan.cautious, plan.more) == (None, None, None)
    assert "run at least two seeds" in plan.note


def test_enough_seeds_need_no_more_and_no_note() -> None:
    plan = plan_seeds(observed(5, 0.0, 0.001**2), 0.01)
    assert (plan.seeds, plan.more, plan.note) == (3, 0, "")


def test_rejects_a_zero_difference() -> None:
    with pytest.raises(RunError, match="valid: a difference above 0"):
        plan_seeds(observed(3, 0.0, 0.0), 0.0)
