"""Means over images of the IoU and the Dice coefficient, against sets of pixels and scikit-learn."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fcnlab.metrics.summary import ImageMetrics, compute_image_metrics, compute_metrics, iou_to_dice
from tests.metrics.test_confusion import array, counts, images, property_test

sklearn_metrics = pytest.importorskip("sklearn.metrics", reason="scikit-learn is not installed")

Image = tuple[np.ndarray, np.ndarray]
CLASSES = 4

splits = st.lists(images(), min_size=1, max_size=5).map(
    lambda pairs: [(p % CLASSES, np.where(t == 255, 255, t % CLASSES).astype(np.uint8)) for p, t, _ in pairs]
)
"""Predictions and labels of images of different sizes, in which classes are often absent and pixels ignored."""


def evaluate(split: Sequence[Image]) -> ImageMetrics:
    return compute_image_metrics(np.stack([counts(prediction, label, CLASSES) for prediction, label in split]))


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan


def by_hand(split: Sequence[Image], measure: Callable[[set[int], set[int]], float]) -> tuple[float, list[float]]:
    """Compute the mean over the images and those of single classes from sets of pixels."""
    of_images: list[float] = []
    of_classes: list[list[float]] = [[] for _ in range(CLASSES)]
    for prediction, label in split:
        pixels = list(zip(prediction.ravel().tolist(), label.ravel().tolist(), strict=True))
        own = []
        for index in range(CLASSES):
            predicted = {at for at, (p, t) in enumerate(pixels) if p == index and t != 255}
            labeled = {at for at, (_, t) in enumerate(pixels) if t == index}
            if labeled:
                own.append(measure(predicted, labeled))
                of_classes[index].append(own[-1])
        if own:
            of_images.append(mean(own))
    return mean(of_images), [mean(values) for values in of_classes]


@given(splits)
@property_test
def test_metrics_equal_those_of_sets_of_pixels(split: list[Image]) -> None:
    found = evaluate(split)
    miou, class_iou = by_hand(split, lambda p, t: len(p & t) / len(p | t))
    dice, class_dice = by_hand(split, lambda p, t: 2 * len(p & t) / (len(p) + len(t)))
    assert [found.miou, *found.class_iou] == pytest.approx([miou, *class_iou], nan_ok=True)
    assert [found.dice, *found.class_dice] == pytest.approx([dice, *class_dice], nan_ok=True)


@given(splits)
@property_test
def test_metrics_equal_the_means_of_scikit_learn_over_images(split: list[Image]) -> None:
    found = evaluate(split)
    valid = [(p[t != 255], t[t != 255]) for p, t in split if (t != 255).any()]
    for score, value, by_class in (
        (sklearn_metrics.jaccard_score, found.miou, found.class_iou),
        (sklearn_metrics.f1_score, found.dice, found.class_dice),
    ):
        each = [score(t, p, labels=np.unique(t), average="macro", zero_division=0) for p, t in valid]
        assert value == pytest.approx(mean(each), nan_ok=True)
        for index in range(CLASSES):
            of_class = [score(t == index, p == index, zero_division=0) for p, t in valid if (t == index).any()]
            assert by_class[index] == pytest.approx(mean(of_class), nan_ok=True)


@given(splits)
@property_test
def test_the_metrics_of_one_image_are_those_of_its_split(split: list[Image]) -> None:
    found, expected = evaluate(split[:1]), compute_metrics(counts(*split[0], CLASSES))
    assert np.array_equal([found.miou, *found.class_iou], [expected.miou, *expected.class_iou], equal_nan=True)
    assert found.class_dice == pytest.approx(iou_to_dice(np.array(expected.class_iou)), nan_ok=True)


def test_the_dice_of_a_class_is_averaged_over_images_and_not_computed_from_their_mean_iou() -> None:
    small = array([1, 0, 0, 0]), array([1, 1, 0, 0])
    large = array([1] * 12 + [0] * 4), array([1] * 12 + [0] * 4)
    found = evaluate([small, large])
    assert found.class_iou[1] == 0.75 and found.class_dice[1] == pytest.approx((2 / 3 + 1) / 2)
    assert found.class_dice[1] < iou_to_dice(np.array(found.class_iou[1]))
    total = compute_metrics(np.stack([counts(*small, CLASSES), counts(*large, CLASSES)]))
    assert total.class_iou[1] == 13 / 14, "the large image has more pixels"


def test_pixels_of_a_class_that_an_image_does_not_contain_count_only_for_the_labeled_class() -> None:
    without = array([1, 1, 0, 0]), array([0, 0, 0, 0])
    with_it = array([1, 1, 0, 0]), array([1, 1, 0, 0])
    found = evaluate([without, with_it])
    assert (found.class_iou[1], found.class_dice[1]) == (1, 1)
    assert found.class_iou[0] == (0.5 + 1) / 2 and found.miou == (0.5 + 1) / 2


def test_an_image_without_labeled_pixels_is_left_out() -> None:
    ignored = array([0, 1]), array([255, 255])
    labeled = array([0, 1]), array([0, 0])
    assert evaluate([ignored, labeled]).miou == evaluate([labeled]).miou == 0.5
    nothing = evaluate([ignored])
    assert np.isnan([nothing.miou, nothing.dice, *nothing.class_iou, *nothing.class_dice]).all()
    empty = compute_image_metrics(np.zeros((0, 2, 3), dtype=np.int64))
    assert np.isnan([empty.miou, empty.dice, *empty.class_iou]).all() and len(empty.class_dice) == 2
