"""Holm's correction, checked against worked examples and the step-down procedure."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fcnlab.analysis import adjust_p_values


def test_matches_worked_examples() -> None:
    """The expected values are computed by hand and by R's p.adjust."""
    np.testing.assert_allclose(adjust_p_values([0.01, 0.02, 0.04]), [0.03, 0.04, 0.04])
    np.testing.assert_allclose(adjust_p_values([0.05, 0.01, 0.03, 0.02, 0.04]), [0.09, 0.05, 0.09, 0.08, 0.09])
    np.testing.assert_allclose(adjust_p_values([0.9, 0.6]), [1, 1])
    assert adjust_p_values([]).shape == (0,)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12), st.floats(0.001, 0.5))
def test_equals_the_step_down_procedure(p_values: list[float], level: float) -> None:
    rejected = set()
    for step, index in enumerate(np.argsort(p_values, kind="stable")):
        if (len(p_values) - step) * p_values[index] > level:
            break
        rejected.add(index)
    assert set(np.flatnonzero(adjust_p_values(p_values) <= level)) == rejected


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_nan_stays_nan_and_does_not_count(p_values: list[float]) -> None:
    adjusted = adjust_p_values([np.nan, *p_values, np.nan])
    assert np.isnan(adjusted[[0, -1]]).all()
    np.testing.assert_array_equal(adjusted[1:-1], adjust_p_values(p_values))
