"""Holm's adjustment, against worked examples and the procedure as it is told."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fcnlab.analysis import holm


def test_worked_examples() -> None:
    """By hand, and what R's p.adjust prints."""
    np.testing.assert_allclose(holm([0.01, 0.02, 0.04]), [0.03, 0.04, 0.04])
    np.testing.assert_allclose(holm([0.05, 0.01, 0.03, 0.02, 0.04]), [0.09, 0.05, 0.09, 0.08, 0.09])
    np.testing.assert_allclose(holm([0.9, 0.6]), [1, 1])
    assert holm([]).shape == (0,)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12), st.floats(0.001, 0.5))
def test_rejects_what_the_step_down_procedure_rejects(p_values: list[float], level: float) -> None:
    rejected = set()
    for step, index in enumerate(np.argsort(p_values, kind="stable")):
        if (len(p_values) - step) * p_values[index] > level:
            break
        rejected.add(index)
    assert set(np.flatnonzero(holm(p_values) <= level)) == rejected


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_a_nan_stays_one_and_does_not_count(p_values: list[float]) -> None:
    adjusted = holm([np.nan, *p_values, np.nan])
    assert np.isnan(adjusted[[0, -1]]).all()
    np.testing.assert_array_equal(adjusted[1:-1], holm(p_values))
