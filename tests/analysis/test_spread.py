"""Summaries, against the standard library."""

from __future__ import annotations

import math
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fcnlab.analysis import summary


@given(st.lists(st.floats(0, 1), min_size=2, max_size=9))
def test_is_what_the_standard_library_says(values: list[float]) -> None:
    found = summary([*values, math.nan])
    assert found.mean == pytest.approx(statistics.mean(values), abs=1e-12)
    assert found.std == pytest.approx(statistics.stdev(values), abs=1e-12)
    assert found.median == pytest.approx(statistics.median(values), abs=1e-12)
    assert (found.n, found.low, found.high) == (len(values), min(values), max(values))


def test_one_value_has_no_spread_and_none_has_nothing() -> None:
    one, none = summary([0.5]), summary(iter(()))
    assert (one.mean, one.n, one.median, one.low, one.high) == (0.5, 1, 0.5, 0.5, 0.5)
    assert math.isnan(one.std)
    assert none.n == 0
    assert all(math.isnan(x) for x in (none.mean, none.std, none.median, none.low, none.high))
