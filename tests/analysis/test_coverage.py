"""Coverage of the intervals: a small simulation; `benchmarks/coverage.py` is the large one."""

from __future__ import annotations

import csv

import numpy as np
import pytest

from fcnlab.analysis import MIN_SEEDS, estimate_difference
from tests.analysis.cells import random_target
from tests.conftest import REPOSITORY


@pytest.mark.parametrize("spread", [0.005, 0.05])
def test_intervals_of_three_seeds_cover_the_truth(spread: float) -> None:
    """Cell and baseline come from one distribution, so the true difference is zero."""
    grids, covered = 200, 0
    for grid in range(grids):
        random = np.random.default_rng(grid)
        target = random_target(random, 40, 3)
        models = 0.7 + spread * random.standard_normal((2, 3, 1, 1))
        images = 0.1 * random.standard_normal((2, 1, *target.shape))
        hit = random.binomial(target, np.clip(models + images, 0, 1))
        counts = np.stack((hit, *np.broadcast_arrays(target, target, hit)[:2]), axis=-1)
        found = estimate_difference(dict(enumerate(counts[0])), dict(enumerate(counts[1])), resamples=200, seed=grid)
        covered += found.low <= 0 <= found.high
    assert 0.90 <= covered / grids <= 0.99


def test_the_committed_simulation_covers_93_to_97_per_cent() -> None:
    """Checks rows with at least MIN_SEEDS seeds, up to two standard errors of the simulation."""
    with (REPOSITORY / "docs/coverage/coverage.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {int(row["seeds"]) for row in rows} == {1, 3, 5, 10}
    for row in rows:
        grids, coverage = int(row["grids"]), float(row["coverage"])
        assert grids >= 1000
        if int(row["seeds"]) >= MIN_SEEDS:
            error = 2 * np.sqrt(0.95 * 0.05 / grids)
            assert 0.93 - error <= coverage <= 0.97 + error, row
