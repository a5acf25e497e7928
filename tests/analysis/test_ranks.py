"""Rank stability, checked against scipy."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from fcnlab.analysis import measure_rank_stability

Values = dict[str, dict[int, float]]


@st.composite
def grids(draw: st.DrawFn) -> Values:
    """Generate values without ties within a seed."""
    cells, seeds = draw(st.integers(2, 6)), draw(st.integers(2, 5))
    orders = [draw(st.permutations(range(cells))) for _ in range(seeds)]
    return {f"cell{c}": {s: orders[s][c] / 10 for s in range(seeds)} for c in range(cells)}


@settings(deadline=None)
@given(grids())
def test_matches_scipy(grid: Values) -> None:
    found = measure_rank_stability(grid)
    table = np.array([list(by_seed.values()) for by_seed in grid.values()])
    ranks = stats.rankdata(-table, axis=0)
    taus = [stats.kendalltau(table[:, a], table[:, b]).statistic for a, b in combinations(range(table.shape[1]), 2)]
    assert found.kendall_tau == pytest.approx(np.mean(taus))
    assert found.agreement == pytest.approx((1 + np.mean(taus)) / 2)
    np.testing.assert_allclose(list(found.first.values()), (ranks == 1).sum(1))
    assert set(found.tied.values()) == {0}
    assert list(found.first) == list(grid)


def test_a_seed_with_two_best_cells_counts_for_both_and_as_tied() -> None:
    found = measure_rank_stability({"a": {0: 0.6, 1: 0.6}, "b": {0: 0.6, 1: 0.5}, "c": {0: 0.1, 1: 0.1}})
    assert found.first == {"a": 2, "b": 1, "c": 0} and found.tied == {"a": 1, "b": 1, "c": 0}
    assert found.kendall_tau == pytest.approx(2 / 3)


def test_uses_only_seeds_that_all_cells_have() -> None:
    found = measure_rank_stability({"a": {0: 0.1, 1: 0.2, 2: 0.9}, "b": {1: 0.5, 0: 0.3}})
    assert found.seeds == (0, 1)
    assert (found.first, found.kendall_tau) == ({"a": 0, "b": 2}, 1.0) and found.tied == {"a": 0, "b": 0}


@pytest.mark.parametrize("grid", [{}, {"a": {0: 0.1}, "b": {1: 0.2}}, {"a": {0: 0.1}, "b": {0: 0.2}}])
def test_tau_is_nan_without_two_common_seeds_and_two_cells(grid: Values) -> None:
    assert math.isnan(measure_rank_stability(grid).kendall_tau)
