"""Tests of counts and metrics against scikit-learn, torchmetrics and the formulas of the paper."""

from __future__ import annotations

import math
from random import Random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fcnlab.metrics.confusion import count_areas, count_joint
from fcnlab.metrics.summary import Metrics, compute_metrics, iou_to_dice
from fcnlab.trial.evaluation.metrics import compute_split_metrics
from fcnlab.trial.record import SplitMetrics

sklearn_metrics = pytest.importorskip("sklearn.metrics", reason="scikit-learn is not installed")
torchmetrics_classification = pytest.importorskip("torchmetrics.classification", reason="torchmetrics is not installed")

Pair = tuple[np.ndarray, np.ndarray, int]
property_test = settings(deadline=None, max_examples=60)


@st.composite
def images(draw: st.DrawFn, ignored: bool = True, min_classes: int = 1) -> Pair:
    """Draw a prediction and a label of one size, with few classes and pixels, so that absent classes are common."""
    num_classes = draw(st.integers(min_classes, 7))
    shape = draw(st.tuples(st.integers(1, 7), st.integers(1, 7)))
    prediction = draw(hnp.arrays(np.uint8, shape, elements=st.integers(0, num_classes - 1)))
    labels = st.integers(0, num_classes - 1)
    label = draw(hnp.arrays(np.uint8, shape, elements=labels | st.just(255) if ignored else labels))
    return prediction, label, num_classes


def counts(prediction: np.ndarray, label: np.ndarray, num_classes: int) -> np.ndarray:
    predictions, labels = (torch.from_numpy(image.copy())[None] for image in (prediction, label))
    return count_areas(predictions, labels, num_classes)[0].numpy()


def evaluate(pair: Pair) -> SplitMetrics:
    """Compute the metrics of a split of one image, as they are recorded."""
    return compute_split_metrics("test", "last", 1, counts(*pair)[None], None)


def by_hand(prediction: np.ndarray, label: np.ndarray, num_classes: int) -> Metrics:
    """Compute the metrics by the formulas of the paper, pixel by pixel."""
    n = [[0] * num_classes for _ in range(num_classes)]
    for p, t in zip(prediction.ravel().tolist(), label.ravel().tolist(), strict=True):
        if t != 255:
            n[t][p] += 1
    target = [sum(row) for row in n]
    predicted = [sum(row[i] for row in n) for i in range(num_classes)]
    total = sum(target)
    union = [target[i] + predicted[i] - n[i][i] for i in range(num_classes)]
    iou = [n[i][i] / union[i] if target[i] else math.nan for i in range(num_classes)]
    acc = [n[i][i] / target[i] for i in range(num_classes) if target[i]]
    valid = [value for value in iou if not math.isnan(value)]
    return Metrics(
        miou=sum(valid) / len(valid) if valid else math.nan,
        pixel_acc=sum(n[i][i] for i in range(num_classes)) / total if total else math.nan,
        mean_acc=sum(acc) / len(acc) if acc else math.nan,
        fw_iou=sum(target[i] * iou[i] for i in range(num_classes) if target[i]) / total if total else math.nan,
        class_iou=tuple(iou),
    )


def same(a: Metrics, b: Metrics) -> bool:
    one, other = ([f.miou, f.pixel_acc, f.mean_acc, f.fw_iou, *f.class_iou] for f in (a, b))
    return bool(np.allclose(one, other, rtol=1e-12, atol=1e-12, equal_nan=True))


@given(images())
@property_test
def test_metrics_equal_the_formulas_of_the_paper(pair: Pair) -> None:
    assert same(compute_metrics(counts(*pair)), by_hand(*pair))


@given(images(min_classes=2))  # scikit-learn warns if there is one class
@property_test
def test_counts_equal_the_confusion_matrix_of_scikit_learn(pair: Pair) -> None:
    prediction, label, num_classes = pair
    valid = label != 255
    if valid.any():
        matrix = sklearn_metrics.confusion_matrix(label[valid], prediction[valid], labels=range(num_classes))
    else:
        matrix = np.zeros((num_classes, num_classes), dtype=int)
    expected = np.stack([matrix.diagonal(), matrix.sum(0), matrix.sum(1)], axis=1)
    assert np.array_equal(counts(*pair), expected)


@given(images(ignored=False))
@property_test
def test_metrics_equal_those_of_scikit_learn(pair: Pair) -> None:
    prediction, label, _ = pair
    found = compute_metrics(counts(*pair))
    p, t = prediction.ravel(), label.ravel()
    assert found.pixel_acc == pytest.approx(sklearn_metrics.accuracy_score(t, p))
    assert found.mean_acc == pytest.approx(
        sklearn_metrics.recall_score(t, p, labels=np.unique(t), average="macro", zero_division=0)
    )
    # Without `labels`, scikit-learn also averages over classes that are only predicted.
    assert found.miou == pytest.approx(
        sklearn_metrics.jaccard_score(t, p, labels=np.unique(t), average="macro", zero_division=0)
    )
    assert found.fw_iou == pytest.approx(sklearn_metrics.jaccard_score(t, p, average="weighted", zero_division=0))


@given(images(ignored=False))
@property_test
def test_mean_dice_equals_the_f1_score_of_scikit_learn(pair: Pair) -> None:
    prediction, label, _ = pair
    p, t = prediction.ravel(), label.ravel()
    expected = sklearn_metrics.f1_score(t, p, labels=np.unique(t), average="macro", zero_division=0)
    assert evaluate(pair).dice == pytest.approx(expected)


@given(images(min_classes=2))
@property_test
def test_class_dice_equals_the_f1_score_of_torchmetrics(pair: Pair) -> None:
    prediction, label, num_classes = pair
    metric = torchmetrics_classification.MulticlassF1Score(num_classes, average="none", ignore_index=255)
    theirs = metric(torch.from_numpy(prediction.copy())[None], torch.from_numpy(label.copy()).long()[None]).numpy()
    ours = iou_to_dice(np.array(compute_metrics(counts(*pair)).class_iou))
    labeled = ~np.isnan(ours)
    assert np.array_equal(labeled, np.isin(range(num_classes), label))
    assert np.allclose(ours[labeled], theirs[labeled], atol=1e-6)


def test_dice_of_a_split_without_labeled_pixels_is_missing() -> None:
    ignored = np.full((2, 2), 255, dtype=np.uint8)
    assert evaluate((np.zeros((2, 2), dtype=np.uint8), ignored, 3)).dice is None


@given(images(min_classes=2))
@property_test
def test_class_iou_equals_that_of_torchmetrics(pair: Pair) -> None:
    prediction, label, num_classes = pair
    metric = torchmetrics_classification.MulticlassJaccardIndex(num_classes, average="none", ignore_index=255)
    theirs = metric(torch.from_numpy(prediction.copy())[None], torch.from_numpy(label.copy()).long()[None]).numpy()
    ours = np.array(compute_metrics(counts(*pair)).class_iou)
    valid = ~np.isnan(ours)  # torchmetrics returns 0 for a class without a labeled pixel
    assert np.allclose(ours[valid], theirs[valid], atol=1e-6)
    assert np.all(theirs[~valid] == 0)


@given(images(min_classes=2))
@property_test
def test_miou_equals_that_of_torchmetrics_where_each_predicted_class_is_labeled(pair: Pair) -> None:
    prediction, label, num_classes = pair
    labeled = np.unique(label[label != 255])
    if labeled.size == 0:
        return
    prediction = labeled[prediction % labeled.size]
    metric = torchmetrics_classification.MulticlassJaccardIndex(num_classes, average="macro", ignore_index=255)
    theirs = metric(torch.from_numpy(prediction)[None], torch.from_numpy(label.copy()).long()[None]).item()
    assert compute_metrics(counts(prediction, label, num_classes)).miou == pytest.approx(theirs, abs=1e-6)


@given(images(), st.randoms(use_true_random=False))
@property_test
def test_the_classes_of_the_mean_do_not_depend_on_the_prediction(pair: Pair, random: Random) -> None:
    prediction, label, num_classes = pair
    other = np.array([random.randrange(num_classes) for _ in range(label.size)], dtype=np.uint8).reshape(label.shape)
    found = [np.isnan(compute_metrics(counts(one, label, num_classes)).class_iou) for one in (prediction, other)]
    assert np.array_equal(*found)
    assert np.flatnonzero(~found[0]).tolist() == [one for one in np.unique(label) if one != 255]


@given(images(min_classes=2))
@property_test
def test_predictions_on_ignored_pixels_are_not_counted(pair: Pair) -> None:
    prediction, label, num_classes = pair
    label = label.copy()
    label[0, 0] = 255
    other = prediction.copy()
    other[label == 255] = (other[label == 255] + 1) % num_classes
    assert not np.array_equal(other, prediction)
    assert np.array_equal(counts(prediction, label, num_classes), counts(other, label, num_classes))


@given(st.lists(st.tuples(st.integers(1, 5), st.integers(1, 5), st.integers(0, 2**31)), min_size=1, max_size=4))
@property_test
def test_metrics_of_a_split_are_computed_over_all_its_pixels(sizes: list[tuple[int, int, int]]) -> None:
    # Not a mean over images.
    pairs = []
    for height, width, seed in sizes:
        rng = np.random.default_rng(seed)
        label = rng.choice([0, 1, 2, 255], (height, width)).astype(np.uint8)
        pairs.append((rng.integers(0, 4, (height, width), dtype=np.uint8), label))
    each = np.stack([counts(p, t, 4) for p, t in pairs])
    prediction, label = (np.concatenate([pair[i].ravel() for pair in pairs])[None] for i in (0, 1))
    assert np.array_equal(each.sum(0), counts(prediction, label, 4))
    assert same(compute_metrics(each), compute_metrics(counts(prediction, label, 4)))
    assert same(compute_metrics(each), compute_metrics(each.sum(0)))


@given(images())
@property_test
def test_metrics_do_not_depend_on_the_order_of_the_classes(pair: Pair) -> None:
    prediction, label, num_classes = pair
    table = np.arange(256, dtype=np.uint8)
    table[:num_classes] = table[:num_classes][::-1]
    found, renamed = (
        compute_metrics(counts(*pair)),
        compute_metrics(counts(table[prediction], table[label], num_classes)),
    )
    assert renamed.miou == pytest.approx(found.miou, nan_ok=True)
    assert renamed.fw_iou == pytest.approx(found.fw_iou, nan_ok=True)
    assert renamed.class_iou == pytest.approx(found.class_iou[::-1], nan_ok=True)


@given(images())
@property_test
def test_metrics_are_fractions_and_1_only_for_a_perfect_prediction(pair: Pair) -> None:
    prediction, label, _ = pair
    found = compute_metrics(counts(*pair))
    values = [found.miou, found.pixel_acc, found.mean_acc, found.fw_iou]
    if (label == 255).all():
        assert np.isnan(values).all()
    else:
        assert all(0 <= value <= 1 for value in values)
        assert (found.miou == 1) == bool((prediction == label)[label != 255].all())


def array(*rows: list[int]) -> np.ndarray:
    return np.array(rows, dtype=np.uint8)


def test_a_class_that_neither_occurs_nor_is_predicted_is_left_out() -> None:
    found = compute_metrics(counts(array([0, 0, 1]), array([0, 0, 1]), 5))
    assert found.miou == found.mean_acc == 1
    assert found.class_iou[:2] == (1, 1)
    assert np.isnan(found.class_iou[2:]).all()


def test_a_class_that_is_predicted_but_not_labeled_is_in_no_mean() -> None:
    found = compute_metrics(counts(array([0, 2]), array([0, 0]), 3))
    assert np.isnan(found.class_iou[2])
    assert found.miou == found.mean_acc == found.class_iou[0] == 0.5  # the wrong pixel counts against class 0


def test_a_class_that_is_labeled_but_not_predicted_has_an_iou_of_0() -> None:
    found = compute_metrics(counts(array([0, 0]), array([0, 2]), 3))
    assert found.class_iou[2] == 0
    assert found.miou == pytest.approx((0.5 + 0) / 2)
    assert found.mean_acc == pytest.approx((1 + 0) / 2)


def test_metrics_are_nan_if_all_pixels_are_ignored() -> None:
    found = compute_metrics(counts(array([0, 1]), array([255, 255]), 2))
    assert np.isnan([found.miou, found.pixel_acc, found.mean_acc, found.fw_iou, *found.class_iou]).all()


def test_metrics_of_one_class_and_one_pixel() -> None:
    assert compute_metrics(counts(array([0]), array([0]), 1)) == Metrics(1, 1, 1, 1, (1,))
    found = compute_metrics(counts(array([1]), array([0]), 2))
    assert found.class_iou[0] == found.miou == found.pixel_acc == found.mean_acc == found.fw_iou == 0
    assert np.isnan(found.class_iou[1])


def test_metrics_of_a_split_without_images_are_nan() -> None:
    assert math.isnan(compute_metrics(np.zeros((0, 3, 3), dtype=np.int64)).miou)


def test_255_classes_are_counted() -> None:
    every = np.arange(255, dtype=np.uint8)[None]
    assert compute_metrics(counts(every, every, 255)).miou == 1
    assert np.array_equal(counts(every, every[:, ::-1].copy(), 255)[:, 1:], np.ones((255, 2)))


def test_counts_are_64_bit_and_do_not_overflow() -> None:
    one = counts(array([0, 1]), array([0, 1]), 2)
    assert one.dtype == np.int64
    many = np.broadcast_to(one * 2**40, (50, 2, 3))
    assert compute_metrics(many).miou == 1
    assert compute_metrics(many.astype(np.int64).sum(0)).pixel_acc == 1


def test_counting_does_not_change_prediction_and_label() -> None:
    prediction, label = torch.tensor([[0, 1]], dtype=torch.uint8), torch.tensor([[1, 255]], dtype=torch.uint8)
    count_areas(prediction[None], label[None], 2)
    assert prediction.tolist() == [[0, 1]] and label.tolist() == [[1, 255]]


@pytest.mark.parametrize("num_classes", [1, 2, 21, 150, 255])  # 16-bit and 32-bit keys
@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 5, 7), (9, 4, 33), (70, 2, 8), (2, 0, 4), (0, 3, 3)])
def test_counts_of_a_batch_equal_those_of_its_images(num_classes: int, shape: tuple[int, int, int]) -> None:
    rng = np.random.default_rng(0)
    predictions = rng.integers(0, num_classes, shape, dtype=np.uint8)
    labels = rng.choice([*range(min(num_classes, 200)), 255], shape).astype(np.uint8)
    found = count_areas(torch.from_numpy(predictions), torch.from_numpy(labels), num_classes).numpy()
    assert found.shape == (shape[0], num_classes, 3) and found.dtype == np.int64
    for image, prediction, label in zip(found, predictions, labels, strict=True):
        valid = label != 255
        p, t = prediction[valid], label[valid]
        hist = [np.bincount(of, minlength=num_classes) for of in (p[p == t], p, t)]
        assert np.array_equal(image, np.stack(hist, 1))


def test_joint_counts_are_by_label_and_prediction() -> None:
    labels = torch.tensor([[[0, 1, 1, 255]], [[2, 2, 0, 0]]], dtype=torch.uint8)
    predictions = torch.tensor([[[0, 1, 0, 2]], [[2, 1, 1, 1]]], dtype=torch.uint8)
    found = count_joint(predictions, labels, columns=3, rows=4)
    assert found[0].tolist() == [[1, 0, 0], [1, 1, 0], [0, 0, 0], [0, 0, 1]]
    assert found[1].tolist() == [[0, 2, 0], [0, 0, 0], [0, 1, 1], [0, 0, 0]]
