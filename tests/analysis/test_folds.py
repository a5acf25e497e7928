"""Differences in a cross-validation, checked against the t test and the formula of Nadeau and Bengio (2003)."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from fcnlab.analysis import apply_holm, estimate_difference, estimate_differences, plan_seeds, select_folds
from fcnlab.config.dataset import CrossValidation
from fcnlab.errors import RunError
from fcnlab.metrics.summary import Counts, compute_metrics
from tests.analysis.cells import random_cell, random_target

FOLDS = CrossValidation(folds=5)


def cells(seeds: int, *, classes: int = 3) -> tuple[dict[int, Counts], dict[int, Counts]]:
    """Generate two cells; each fold has other images, of another number."""
    random = np.random.default_rng(seeds)
    targets = [random_target(random, 8 + fold % 2, classes) for fold in range(FOLDS.folds)]
    pairs = [[random_cell(random, targets[seed % 5], 1, skill)[0] for skill in (0.75, 0.7)] for seed in range(seeds)]
    return {seed: pair[0] for seed, pair in enumerate(pairs)}, {seed: pair[1] for seed, pair in enumerate(pairs)}


def differences_by_seed(cell: dict[int, Counts], baseline: dict[int, Counts]) -> np.ndarray:
    return np.array([compute_metrics(cell[seed]).miou - compute_metrics(baseline[seed]).miou for seed in cell])


@pytest.mark.parametrize("seeds", [2, 5, 10])
def test_the_interval_is_that_of_the_corrected_t_test(seeds: int) -> None:
    cell, baseline = cells(seeds)
    found, values = estimate_difference(cell, baseline, folds=FOLDS), differences_by_seed(cell, baseline)
    error = values.std(ddof=1) * np.sqrt(1 / seeds + (1 / 5) / (4 / 5))
    margin = stats.t.ppf(0.975, seeds - 1) * error
    assert [found.value, found.std_error] == pytest.approx([values.mean(), error])
    assert [found.low, found.high] == pytest.approx([values.mean() - margin, values.mean() + margin])
    assert found.p_value == pytest.approx(2 * stats.t.sf(abs(values.mean()) / error, seeds - 1))
    assert list(found.by_seed.values()) == pytest.approx(values.tolist())
    assert (found.p_value < 0.05) == (found.low > 0 or found.high < 0)


def test_without_the_correction_it_is_the_paired_t_test() -> None:
    cell, baseline = cells(5)
    found, values = estimate_difference(cell, baseline, folds=FOLDS), differences_by_seed(cell, baseline)
    naive = stats.ttest_1samp(values, 0).confidence_interval()
    ratio = np.sqrt((1 / 5 + FOLDS.test_ratio) / (1 / 5))
    assert found.high - found.value == pytest.approx(ratio * (naive.high - values.mean()))


def test_the_ratio_of_images_takes_val_into_account() -> None:
    assert CrossValidation(folds=5, val=0.2).test_ratio == pytest.approx(0.2 / 0.6)


def test_images_of_a_fold_count_once() -> None:
    cell, baseline = cells(7)
    found = estimate_difference(cell, baseline, folds=FOLDS)
    assert found.images == sum(len(cell[fold]) for fold in range(5))
    labeled = [np.count_nonzero(cell[fold][..., 2], axis=0) for fold in range(5)]
    assert found.classes.images.tolist() == np.sum(labeled, axis=0).tolist()
    assert select_folds([7, 2, 0, 5, 6], FOLDS) == [0, 2, 6] and select_folds([3, 1], None) == [1]


def test_a_class_that_a_fold_lacks_is_averaged_over_the_others() -> None:
    cell, baseline = cells(5)
    for side in (cell, baseline):
        side[3][:, 1] = 0
        for seed in (0, 1, 2, 3):
            side[seed][:, 2] = 0
    found = estimate_difference(cell, baseline, folds=FOLDS)
    of_class = [
        compute_metrics(cell[seed]).class_iou[1] - compute_metrics(baseline[seed]).class_iou[1] for seed in (0, 1, 2, 4)
    ]
    assert found.classes.value[1] == pytest.approx(np.mean(of_class))
    error = np.std(of_class, ddof=1) * np.sqrt(1 / 4 + 1 / 4)
    assert found.classes.high[1] - found.classes.value[1] == pytest.approx(stats.t.ppf(0.975, 3) * error)
    assert np.isfinite(found.classes.value[2]) and np.isnan(found.classes.low[2]), "one fold gives no interval"
    assert found.value == pytest.approx(differences_by_seed(cell, baseline).mean())


def test_one_seed_has_the_interval_of_its_images_and_no_claim() -> None:
    cell, baseline = cells(1)
    found, plain = estimate_difference(cell, baseline, folds=FOLDS), estimate_difference(cell, baseline)
    assert (found.value, found.low, found.high) == (plain.value, plain.low, plain.high)
    assert apply_holm({"cell": found})["cell"].significant is None


def test_seeds_are_paired_by_the_images_of_their_fold() -> None:
    cell, baseline = cells(5)
    shifted = {seed: baseline[(seed + 2) % 5] for seed in baseline}
    with pytest.raises(RunError, match="paired difference needs the same images"):
        estimate_difference(cell, shifted, folds=FOLDS)
    found = estimate_differences({"a": baseline, "b": cell, "c": {9: cell[4]}}, "a", folds=FOLDS)
    assert list(found) == ["b"]
    assert found["b"].by_seed == estimate_difference(cell, baseline, folds=FOLDS).by_seed


def test_no_seeds_are_planned() -> None:
    plan = plan_seeds(estimate_difference(*cells(5), folds=FOLDS), 0.01)
    assert (plan.seeds, plan.cautious) == (None, None) and "from a cross-validation" in plan.note
