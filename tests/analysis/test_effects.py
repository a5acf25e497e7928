"""Effects: means of differences over pairs of cells, checked against the differences of single pairs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fcnlab.analysis import CellCounts, estimate_difference, estimate_effects
from fcnlab.analysis.intervals import compute_fold_interval
from fcnlab.config.dataset import CrossValidation
from fcnlab.errors import RunError
from fcnlab.metrics.summary import compute_metrics
from tests.analysis.cells import random_cell, random_target

quick = settings(deadline=None, max_examples=15)
RESAMPLES = 200
PAIRS = {"a": [("a1", "b1"), ("a2", "b2")]}


def four_cells(seeds: int = 3, number: int = 0, images: int = 20) -> dict[str, CellCounts]:
    random = np.random.default_rng([seeds, number])
    target = random_target(random, images, 3)
    return {
        label: random_cell(random, target, seeds, right)
        for label, right in (("a1", 0.8), ("b1", 0.7), ("a2", 0.75), ("b2", 0.6))
    }


def miou_by_seed(cell: CellCounts) -> np.ndarray:
    return np.array([compute_metrics(cell[seed]).miou for seed in sorted(cell)])


@quick
@given(st.integers(1, 5), st.integers(0, 2**32))
def test_the_effect_of_one_pair_is_its_difference(seeds: int, number: int) -> None:
    cells = four_cells(seeds, number)
    effect = estimate_effects(cells, {"one": [("a1", "b1")]}, resamples=RESAMPLES)["one"]
    difference = estimate_difference(cells["a1"], cells["b1"], resamples=RESAMPLES)
    assert effect.by_pair == pytest.approx([difference.value])
    for name in ("value", "low", "high", "p_value"):
        assert getattr(effect, name) == pytest.approx(getattr(difference, name), nan_ok=True)


@quick
@given(st.integers(1, 5), st.integers(0, 2**32))
def test_the_effect_is_the_mean_of_the_differences_and_changes_its_sign_with_them(seeds: int, number: int) -> None:
    cells = four_cells(seeds, number)
    reversed_pairs = [(b, a) for a, b in PAIRS["a"]]
    effects = estimate_effects(cells, {**PAIRS, "b": reversed_pairs}, resamples=RESAMPLES)
    expected = [(miou_by_seed(cells[a]) - miou_by_seed(cells[b])).mean() for a, b in PAIRS["a"]]
    assert effects["a"].by_pair == pytest.approx(expected)
    assert effects["a"].value == pytest.approx(np.mean(expected))
    assert effects["a"].low <= effects["a"].value <= effects["a"].high
    assert effects["b"].value == pytest.approx(-effects["a"].value)
    assert (effects["b"].low, effects["b"].high) == pytest.approx((-effects["a"].high, -effects["a"].low))


def test_equal_pairs_have_the_interval_of_one() -> None:
    pairs = {"twice": [("a1", "b1")] * 2, "once": [("a1", "b1")]}
    effects = estimate_effects(four_cells(5), pairs, resamples=RESAMPLES)
    assert (effects["twice"].low, effects["twice"].high) == pytest.approx((effects["once"].low, effects["once"].high))


def test_folds_have_the_interval_of_the_mean_of_each_seed() -> None:
    cells, folds = four_cells(5), CrossValidation(folds=5)
    effect = estimate_effects(cells, PAIRS, folds=folds)["a"]
    means = np.mean([miou_by_seed(cells[a]) - miou_by_seed(cells[b]) for a, b in PAIRS["a"]], axis=0)
    expected = compute_fold_interval(means, folds.test_ratio)
    assert (effect.low, effect.high) == pytest.approx((float(expected.low), float(expected.high)))


def test_only_seeds_of_all_cells_count() -> None:
    cells = four_cells(4)
    fewer = {**cells, "a2": {seed: cells["a2"][seed] for seed in (1, 3)}}
    effect = estimate_effects(fewer, PAIRS, resamples=RESAMPLES)["a"]
    kept = {label: {seed: cell[seed] for seed in (1, 3)} for label, cell in cells.items()}
    assert effect.seeds == (1, 3) and effect == estimate_effects(kept, PAIRS, resamples=RESAMPLES)["a"]
    assert estimate_effects({**cells, "a2": {9: cells["a2"][0]}}, PAIRS, resamples=RESAMPLES) == {}


def test_cells_of_different_images_are_an_error() -> None:
    cells = four_cells()
    with pytest.raises(RunError, match="a paired difference needs the same images"):
        estimate_effects({**cells, "b2": four_cells(number=1)["b2"]}, PAIRS, resamples=RESAMPLES)
    other_fold = {**cells["b2"], 2: four_cells(number=1)["b2"][2]}
    with pytest.raises(RunError, match="a paired difference needs the same images"):
        estimate_effects({**cells, "b2": other_fold}, PAIRS, folds=CrossValidation(folds=3))
