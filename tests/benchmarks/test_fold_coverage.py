"""The measurement of the coverage of a cross-validation's intervals: its classifier, its differences and its shares."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.discriminant_analysis import QuadraticDiscriminantAnalysis

from benchmarks.fold_coverage import PAIRS, classify, compute_miou, cross_validate, measure, page
from fcnlab.metrics.summary import Floats


def make_pixels(seed: int) -> tuple[Floats, np.ndarray]:
    random = np.random.default_rng(seed)
    labels = random.integers(0, 3, 600)
    features = random.normal(size=(600, 5)) * (1 + labels[:, None]) + labels[:, None]
    return features, labels


def test_the_classifier_is_quadratic_discriminant_analysis() -> None:
    features, labels = make_pixels(0)
    extended = np.concatenate([np.ones((600, 1)), features], axis=1)
    moments = np.stack([extended[labels == c].T @ extended[labels == c] for c in range(3)])
    new, _ = make_pixels(1)
    for size in (3, 5):
        oracle = QuadraticDiscriminantAnalysis().fit(features[:, :size], labels)
        found = classify(moments, slice(0, size), new[None])[0]
        assert np.mean(found == oracle.predict(new[:, :size])) > 0.99, "up to the unbiased variance"


def test_ignored_pixels_do_not_count() -> None:
    labels = np.array([[0, 0, 1, -1]])
    assert compute_miou(np.array([[0, 1, 1, 0]]), labels, 2) == pytest.approx((1 / 2 + 1 / 2) / 2)


def test_differences_depend_on_the_sample_only(real_data: Path) -> None:
    found = cross_validate(real_data, (40, 5, 6), 3)
    assert found.shape == (len(PAIRS), 6) and len(set(found[0])) == 6
    np.testing.assert_array_equal(found, cross_validate(real_data, (40, 5, 6), 3))
    assert found[0].mean() > 0.03, "the row of a pixel helps"


def test_coverage_of_independent_seeds_is_that_of_the_t_test() -> None:
    values = np.random.default_rng(0).normal(0.02, 0.01, (4000, len(PAIRS), 5))
    for outcome in measure(values, (100, 5, 5)):
        assert outcome.plain_coverage == pytest.approx(0.95, abs=0.015)
        assert outcome.coverage > 0.98, "the correction is for seeds that are correlated"
    assert "| 100 | 5 | 5 | 2.00 | 9" in page(measure(values, (100, 5, 5)), 4000, 1.0)
