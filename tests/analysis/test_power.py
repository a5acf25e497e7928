"""Plans, against sample sizes that are known, simulated tests, and by laws."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fcnlab.analysis import Estimate, plan_seeds
from fcnlab.errors import RunError

law = settings(deadline=None, max_examples=50)


def observed(seeds: int, image_variance: float, seed_variance: float, effective: float = 1000.0) -> Estimate:
    """A paired difference; of it a plan takes the variances and not the value."""
    error = math.sqrt(image_variance + (seed_variance if seeds > 1 else 0) / seeds)
    by_seed = dict.fromkeys(range(seeds), 0.0)
    return Estimate(0, 0, 0, error, 5, 0.95, 1449, effective, by_seed, image_variance, seed_variance)


@pytest.mark.parametrize(("effect", "seeds"), [(0.5, 34), (0.8, 15), (1.0, 10)])
def test_without_image_variance_it_is_the_sample_size_of_a_paired_t_test(effect: float, seeds: int) -> None:
    """Those that G*Power gives for a two-sided paired t test at 0.05 with 80 % power."""
    plan = plan_seeds(observed(3, 0.0, 0.01**2), effect * 0.01)
    assert (plan.seeds, plan.more) == (seeds, seeds - 3)


def test_the_planned_seeds_find_the_difference_as_often_as_they_should() -> None:
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


def test_says_when_images_alone_make_it_impossible() -> None:
    plan = plan_seeds(observed(3, 0.01**2, 0.001**2), 0.01)
    assert (plan.seeds, plan.cautious, plan.more) == (None, None, None)
    assert "no number of seeds is enough" in plan.note
    assert f"{100 * plan.smallest:.2f} points" in plan.note
    assert plan.smallest == pytest.approx((1.962 + 0.842) * 0.01, rel=0.01)
    assert plan_seeds(observed(3, 0.01**2, 0.001**2), plan.smallest * 1.01).seeds is not None


@law
@given(st.floats(0.001, 0.02), st.floats(0, 0.005), st.floats(0.001, 0.02), st.floats(1.05, 3))
def test_a_larger_difference_and_a_smaller_spread_take_no_more_seeds(
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


def test_nothing_is_planned_from_one_seed() -> None:
    plan = plan_seeds(observed(1, 0.001**2, math.nan), 0.01)
    assert (plan.seeds, plan.cautious, plan.more) == (None, None, None)
    assert "run two seeds at least" in plan.note


def test_calls_itself_planning() -> None:
    plan = plan_seeds(observed(5, 0.0, 0.001**2), 0.01)
    assert (plan.seeds, plan.more) == (3, 0)
    assert "planning" in plan.note


@pytest.mark.parametrize("wrong", [{"difference": 0.0}, {"difference": 0.01, "power": 0.01}])
def test_refuses_a_difference_of_nothing_and_powers_below_the_level(wrong: dict[str, float]) -> None:
    with pytest.raises(RunError, match="valid: a difference above 0"):
        plan_seeds(observed(3, 0.0, 0.0), **wrong)
