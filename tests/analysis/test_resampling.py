"""The bootstrap over images."""

from __future__ import annotations

import numpy as np

from fcnlab.analysis.resampling import compute_influence, resample_class_iou
from fcnlab.metrics.summary import compute_class_iou, compute_metrics, mean_over_classes
from tests.analysis.cells import random_cell, random_target


def counts(images: int, num_classes: int, seeds: int = 2) -> np.ndarray:
    random = np.random.default_rng(5)
    cell = random_cell(random, random_target(random, images, num_classes), seeds)
    return np.stack(list(cell.values()))


def test_iou_equals_that_of_the_metrics_in_every_bit() -> None:
    some = counts(6, 40, seeds=20)
    some[:, :, ::3, 0] = some[:, :, ::3, 2] = 0  # predicted, but not labeled
    iou = compute_class_iou(some.sum(1))
    expected = [compute_metrics(one) for one in some]
    np.testing.assert_array_equal(iou, [one.class_iou for one in expected])
    np.testing.assert_array_equal(mean_over_classes(iou), [one.miou for one in expected])
    assert np.isnan(iou[:, ::3]).all() and not np.isnan(mean_over_classes(iou)).any()
    assert np.isnan(mean_over_classes(np.full((1, 3), np.nan))).all()


def test_every_trial_gets_the_same_resamples_across_chunks() -> None:
    some = counts(60, 2)
    many = 30_000
    found = resample_class_iou(some, many, 3)
    sampled = np.random.default_rng(3).integers(0, 60, (many, 60))
    for row in (0, 17_000, 17_476, 17_477, many - 1):  # on both sides of the chunk boundary
        np.testing.assert_array_equal(found[row], compute_class_iou(some[:, sampled[row]].sum(1)))
    np.testing.assert_array_equal(resample_class_iou(some[:1], 100, 3), found[:100, :1])


def test_sums_of_pixels_are_exact() -> None:
    """A difference of one pixel is kept for counts as large as those of 500 images of 2 megapixels."""
    some = np.full((2, 500, 1, 3), 2**21, dtype=np.int64)
    some[1, :, 0, 0] -= 1
    found = resample_class_iou(some, 10, 0)
    np.testing.assert_array_equal(found[:, 0], 1.0)
    np.testing.assert_array_equal(found[:, 1], (2**21 - 1) / (2**21 + 1))


def test_class_without_a_labeled_pixel_in_a_resample_is_nan() -> None:
    some = counts(4, 2, seeds=1)
    some[:, 1:, 1] = (0, 15, 0)
    some[0, 0, 1] = (10, 20, 30)
    found = resample_class_iou(some, 200, 0)[:, 0, 1]
    sampled = np.random.default_rng(0).integers(0, 4, (200, 4))
    np.testing.assert_array_equal(np.isnan(found), ~(sampled == 0).any(1))
    times = (sampled == 0).sum(1)[~np.isnan(found)]
    np.testing.assert_allclose(found[~np.isnan(found)], 10 * times / (40 * times + 15 * (4 - times)))


def test_influence_matches_the_change_by_a_small_extra_weight() -> None:
    some = counts(8, 3)
    found = compute_influence(some)
    for image in range(8):
        heavier = some.copy() * 1_000_000
        heavier[:, image] += some[:, image]
        moved = (compute_class_iou(heavier.sum(1)) - compute_class_iou(some.sum(1))) * 1_000_000
        np.testing.assert_allclose(found[:, image], moved, atol=1e-6)
    np.testing.assert_allclose(found.sum(1), 0, atol=1e-12)
