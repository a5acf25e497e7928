"""Differences between cells, checked against a direct bootstrap, exact enumeration, the t test and properties."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from fcnlab.analysis import (
    CONFIDENCE,
    CellCounts,
    Difference,
    adjust_p_values,
    apply_holm,
    estimate_difference,
    estimate_differences,
)
from fcnlab.analysis.resampling import BootstrapSample
from fcnlab.errors import RunError
from fcnlab.metrics.summary import Counts, compute_metrics
from tests.analysis.cells import random_cell, random_target

quick = settings(deadline=None, max_examples=25)
NUMBERS = ("value", "low", "high", "std_error", "p_value", "image_variance", "seed_variance", "effective_images")


@st.composite
def pairs(draw: st.DrawFn, least_seeds: int = 1) -> tuple[dict[int, Counts], dict[int, Counts]]:
    """Generate two cells with the same seeds and images."""
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    target = random_target(random, draw(st.integers(3, 12)), draw(st.integers(1, 4)))
    seeds = draw(st.integers(least_seeds, 5))
    return random_cell(random, target, seeds), random_cell(random, target, seeds, draw(st.floats(0.5, 0.9)))


def pair(seeds: int, images: int = 40, num_classes: int = 3) -> tuple[dict[int, Counts], dict[int, Counts]]:
    random = np.random.default_rng(seeds)
    target = random_target(random, images, num_classes)
    return random_cell(random, target, seeds, 0.72), random_cell(random, target, seeds)


def miou(counts: Counts) -> float:
    return compute_metrics(counts).miou


def direct_differences(cell: CellCounts, baseline: CellCounts, draws: Counts) -> np.ndarray:
    """Compute the difference for each draw of images and each seed in a loop: [draws, seeds]."""
    return np.array([[miou(cell[s][sample]) - miou(baseline[s][sample]) for s in sorted(cell)] for sample in draws])


def direct_image_variance(resampled: np.ndarray, bias: bool = False) -> float:
    """Compute the mean covariance between two seeds; for one seed, its variance."""
    covariance = np.atleast_2d(np.cov(resampled.T, bias=bias))
    seeds = len(covariance)
    between = [covariance[a, b] for a, b in itertools.combinations(range(seeds), 2)]
    return max(0.0, float(np.mean(between))) if between else float(covariance[0, 0])


def direct_effective_images(cell: CellCounts, baseline: CellCounts) -> float:
    """Compute the effective images from the change of the difference by a small extra weight on each image."""
    images = len(cell[0])
    effects = []
    for image in range(images):
        weight = np.full((images, 1, 1), 100_000)
        weight[image] += 1
        more = [miou(cell[s] * weight) - miou(baseline[s] * weight) for s in cell]
        weight[image] -= 2
        less = [miou(cell[s] * weight) - miou(baseline[s] * weight) for s in cell]
        effects.append(np.mean(more) - np.mean(less))
    effect = np.array(effects)
    return float((effect**2).sum() ** 2 / (effect**4).sum())


@pytest.mark.parametrize("seeds", [1, 2, 4])
def test_matches_a_direct_bootstrap_with_the_same_draws(seeds: int) -> None:
    cell, baseline = pair(seeds, images=15)
    found = estimate_difference(cell, baseline, resamples=200, seed=7)
    random = np.random.default_rng(7)
    resampled = direct_differences(cell, baseline, np.array([random.integers(0, 15, 15) for _ in range(200)]))
    by_seed = np.array([miou(cell[s]) - miou(baseline[s]) for s in range(seeds)])
    effective = direct_effective_images(cell, baseline)
    image_variance = direct_image_variance(resampled)
    seed_part = by_seed.var(ddof=1) / seeds if seeds > 1 else 0.0
    share = seed_part / (seed_part + image_variance)
    dof = 1 / ((1 - share) / (effective - 1) + (share / (seeds - 1) if seeds > 1 else 0))
    error = np.sqrt(image_variance + seed_part)
    assert found.value == pytest.approx(by_seed.mean())
    assert found.by_seed == pytest.approx(dict(enumerate(by_seed)))
    assert found.effective_images == pytest.approx(effective, rel=1e-3)
    assert found.image_variance == pytest.approx(image_variance, rel=1e-3)
    assert found.std_error == pytest.approx(error, rel=1e-3)
    low, high = stats.t.interval(0.95, dof, by_seed.mean(), error)
    assert (found.low, found.high) == pytest.approx((low, high), rel=1e-3)
    assert found.p_value == pytest.approx(2 * stats.t.sf(abs(by_seed.mean()) / error, dof), rel=0.02)


@pytest.mark.parametrize("seeds", [1, 3])
def test_image_variance_matches_the_enumeration_of_all_resamples(seeds: int) -> None:
    cell, baseline = pair(seeds, images=4)
    every = np.array(list(itertools.product(range(4), repeat=4)))
    exact = direct_image_variance(direct_differences(cell, baseline, every), bias=True)
    found = estimate_difference(cell, baseline, resamples=100_000)
    assert found.image_variance == pytest.approx(exact, rel=0.03)


@pytest.mark.parametrize("seeds", [2, 3, 10])
def test_matches_the_paired_t_test_when_all_images_are_equal(seeds: int) -> None:
    random = np.random.default_rng(1)
    image = random_target(random, 1, 3)
    cell, baseline = (
        {seed: np.repeat(counts, 6, axis=0) for seed, counts in random_cell(random, image, seeds, skill).items()}
        for skill in (0.75, 0.7)
    )
    found = estimate_difference(cell, baseline, resamples=50)
    test = stats.ttest_rel(*([miou(one[s]) for s in range(seeds)] for one in (cell, baseline)))
    interval = test.confidence_interval(0.95)
    assert found.p_value == pytest.approx(test.pvalue)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))


@quick
@given(pairs())
def test_swapping_the_cells_flips_every_sign(both: tuple[dict[int, Counts], dict[int, Counts]]) -> None:
    cell, baseline = both
    one, other = (estimate_difference(a, b, resamples=50) for a, b in ((cell, baseline), (baseline, cell)))
    assert (one.value, one.low, one.high) == pytest.approx((-other.value, -other.high, -other.low), abs=1e-15)
    assert one.p_value == pytest.approx(other.p_value)
    np.testing.assert_allclose(one.classes.value, -other.classes.value, atol=1e-15)
    np.testing.assert_allclose(one.classes.low, -other.classes.high, atol=1e-12)
    np.testing.assert_allclose(one.classes.p_value, other.classes.p_value)


@quick
@given(pairs())
def test_equal_cells_have_no_difference(both: tuple[dict[int, Counts], dict[int, Counts]]) -> None:
    found = estimate_difference(both[0], both[0], resamples=20)
    assert (found.value, found.low, found.high, found.p_value) == (0, 0, 0, 1)


@quick
@given(pairs())
def test_p_value_is_below_the_level_if_and_only_if_the_interval_excludes_zero(
    both: tuple[dict[int, Counts], dict[int, Counts]],
) -> None:
    found = estimate_difference(*both, resamples=50)
    assert (found.p_value < 1 - CONFIDENCE) == (found.low > 0 or found.high < 0)
    outside = (found.classes.low > 0) | (found.classes.high < 0)
    np.testing.assert_array_equal(found.classes.p_value < 1 - CONFIDENCE, outside)


@quick
@given(pairs(), st.randoms(use_true_random=False))
def test_order_of_seeds_does_not_matter(both: tuple[dict[int, Counts], dict[int, Counts]], shuffler: Random) -> None:
    order = list(both[0])
    shuffler.shuffle(order)
    shuffled = {seed: both[0][seed] for seed in order}
    assert numbers(estimate_difference(shuffled, both[1], resamples=30)) == numbers(
        estimate_difference(*both, resamples=30)
    )


def test_order_of_images_only_changes_the_draws() -> None:
    cell, baseline = pair(3)
    order = np.random.default_rng(0).permutation(40)
    reordered = ({seed: counts[order] for seed, counts in one.items()} for one in (cell, baseline))
    found, other = estimate_difference(cell, baseline), estimate_difference(*reordered)
    assert other.by_seed == found.by_seed
    assert other.effective_images == pytest.approx(found.effective_images)
    assert other.std_error == pytest.approx(found.std_error, rel=0.03)
    np.testing.assert_allclose(other.classes.low, found.classes.low, atol=5e-4)


@quick
@given(pairs())
def test_absent_class_does_not_matter(both: tuple[dict[int, Counts], dict[int, Counts]]) -> None:
    wider = tuple({seed: np.pad(c, ((0, 0), (1, 0), (0, 0))) for seed, c in one.items()} for one in both)
    found, other = estimate_difference(*both, resamples=30), estimate_difference(*wider, resamples=30)
    np.testing.assert_allclose(list(numbers(other).values()), list(numbers(found).values()), rtol=1e-9, atol=1e-15)
    assert np.isnan([other.classes.value[0], other.classes.low[0], other.classes.p_value[0]]).all()
    assert other.classes.images[0] == 0
    np.testing.assert_allclose(other.classes.value[1:], found.classes.value, rtol=1e-9)


def numbers(found: Difference) -> dict[str, float]:
    return {name: getattr(found, name) for name in NUMBERS if not np.isnan(getattr(found, name))}


def test_class_differences_match_the_metrics() -> None:
    cell, baseline = pair(3)
    found = estimate_difference(cell, baseline, resamples=50).classes
    by_seed = [
        np.subtract(compute_metrics(cell[s]).class_iou, compute_metrics(baseline[s]).class_iou) for s in range(3)
    ]
    np.testing.assert_allclose(found.value, np.mean(by_seed, axis=0))
    np.testing.assert_array_equal(found.images, (cell[0][..., 2] > 0).sum(0))
    assert (found.low < found.value).all()
    assert (found.value < found.high).all()


def test_class_in_one_image_has_a_difference_but_no_interval() -> None:
    cell, baseline = pair(3)
    for counts in (*cell.values(), *baseline.values()):
        counts[1:, 2] = 0
        counts[0, 2] = counts[0, 0]
    cell[0][0, 2, 0] = 1
    found = estimate_difference(cell, baseline, resamples=50)
    assert not np.isnan(found.classes.value[2])
    assert np.isnan([found.classes.low[2], found.classes.high[2], found.classes.p_value[2]]).all()
    assert not np.isnan([found.low, *found.classes.low[:2]]).any()


def test_one_image_gives_no_interval_and_no_claim() -> None:
    cell, baseline = pair(3, images=1)
    found = estimate_difference(cell, baseline, resamples=50)
    assert not np.isnan(found.value)
    assert np.isnan([found.low, found.high, found.p_value]).all()
    assert apply_holm({"cell": found})["cell"].significant is None


@pytest.mark.parametrize(("seeds", "note"), [(1, "training variance is not included"), (2, "no claim"), (3, "")])
def test_note_reports_the_limits_of_few_seeds(seeds: int, note: str) -> None:
    cell, baseline = pair(seeds)
    found = estimate_difference(cell, baseline, resamples=50)
    assert note in found.note
    assert bool(found.note) == (seeds < 3)
    assert (apply_holm({"cell": found})["cell"].significant is None) == (seeds < 3)
    assert np.isnan(found.seed_variance) == (seeds == 1)
    assert (found.seeds, found.images) == (seeds, 40)


def test_seeds_of_only_one_cell_are_not_used() -> None:
    cell, baseline = pair(5)
    few = {seed: baseline[seed] for seed in (1, 3)}
    assert numbers(estimate_difference(cell, few, resamples=30)) == numbers(
        estimate_difference({seed: cell[seed] for seed in (1, 3)}, few, resamples=30)
    )


def test_errors_name_what_cannot_be_compared() -> None:
    cell, baseline = pair(2)
    with pytest.raises(RunError, match=r"seeds \[0, 1\].*\[5\].*needs a common seed"):
        estimate_difference(cell, {5: baseline[0]})
    with pytest.raises(RunError, match=r"\(40, 3, 3\).*\(39, 3, 3\).*evaluate both on one split"):
        estimate_difference(cell, {seed: counts[1:] for seed, counts in baseline.items()})
    with pytest.raises(RunError, match=r"images, the first at index 0, have other labels"):
        estimate_difference(cell, {seed: counts[::-1] for seed, counts in baseline.items()})
    with pytest.raises(RunError, match=r"seed 1 have shape \(39, 3, 3\)"):
        estimate_difference({0: cell[0], 1: cell[1][1:]}, baseline)
    with pytest.raises(RunError, match="resamples is 1; valid: 2 and more"):
        estimate_difference(cell, baseline, resamples=1)


def test_differences_of_a_grid_are_those_of_each_pair_with_the_baseline_resampled_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    random = np.random.default_rng(0)
    target = random_target(random, 20, 3)
    cells = {name: random_cell(random, target, 3) for name in "abcd"}
    cells["d"] = {seed: cells["d"][seed] for seed in (0, 2)}
    expected = {name: estimate_difference(cells[name], cells["a"], resamples=50) for name in "bcd"}
    resampled: list[CellCounts] = []
    original = BootstrapSample.from_counts

    def record(cell: CellCounts, seeds: Sequence[int], resamples: int, seed: int) -> BootstrapSample:
        resampled.append(cell)
        return original(cell, seeds, resamples, seed)

    monkeypatch.setattr(BootstrapSample, "from_counts", record)
    found = estimate_differences(cells, "a", resamples=50)
    assert list(found) == list(expected)
    assert all(getattr(found[name], key) == getattr(expected[name], key) for name in "bcd" for key in NUMBERS)
    assert sum(cell is cells["a"] for cell in resampled) == 2, "once for three common seeds, once for two"


def test_holm_correction_covers_the_cells_with_enough_seeds() -> None:
    random = np.random.default_rng(3)
    target = random_target(random, 30, 3)
    cells = {f"cell{n}": random_cell(random, target, n, 0.7 + n / 200) for n in (1, 3, 4, 5)}
    cells["elsewhere"] = {9: random_cell(random, target, 1)[0]}
    cells["base"] = random_cell(random, target, 5)
    found = apply_holm(estimate_differences(cells, "base", resamples=100))
    assert list(found) == ["cell1", "cell3", "cell4", "cell5"]
    claimed = [found[name] for name in ("cell3", "cell4", "cell5")]
    expected = adjust_p_values([one.difference.p_value for one in claimed])
    np.testing.assert_allclose([one.adjusted_p for one in claimed], expected)
    assert [one.significant for one in claimed] == list(expected < 0.05)
    assert np.isnan(found["cell1"].adjusted_p)
    assert found["cell1"].significant is None


def test_handles_the_size_of_voc() -> None:
    found = estimate_difference(*pair(3, images=1449, num_classes=21))
    assert found.images == 1449
    assert found.low < found.value < found.high
