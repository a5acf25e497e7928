"""Tests of Boundary IoU against the definition of its authors and against the erosion of scipy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from fcnlab.metrics.boundary import compute_boundary_width, count_boundaries, find_boundaries
from fcnlab.metrics.summary import compute_metrics

property_test = settings(deadline=None, max_examples=60)
labels = hnp.arrays(
    np.uint8, st.tuples(st.integers(1, 12), st.integers(1, 12)), elements=st.sampled_from([0, 1, 2, 255])
)


def count(prediction: np.ndarray, label: np.ndarray, num_classes: int) -> np.ndarray:
    """Count the boundary pixels of one image."""
    predictions, labels = (torch.from_numpy(np.ascontiguousarray(image))[None] for image in (prediction, label))
    return count_boundaries(predictions, labels, num_classes)[0].numpy()


def eroded(mask: np.ndarray, times: int) -> np.ndarray:
    """Erode as the authors' `mask_to_boundary`: with a 3x3 kernel, after a border of background is added."""
    framed = np.pad(mask, 1)
    return ndimage.binary_erosion(framed, np.ones((3, 3)), iterations=times, border_value=1)[1:-1, 1:-1]


def by_hand(prediction: np.ndarray, label: np.ndarray, num_classes: int, d: int) -> np.ndarray:
    """Count class by class, as the paper defines it; ignored pixels belong to no class on either side."""
    rows = []
    for c in range(num_classes):
        ours, truth = (prediction == c) & (label != 255), label == c
        ours, truth = ours & ~eroded(ours, d), truth & ~eroded(truth, d)
        rows.append([(ours & truth).sum(), ours.sum(), truth.sum()])
    return np.array(rows)


@given(labels, st.integers(1, 5))
@property_test
def test_boundary_pixels_are_within_chessboard_distance_of_another_class(label: np.ndarray, d: int) -> None:
    height, width = label.shape
    found = find_boundaries(torch.from_numpy(label)[None], d)[0].numpy()
    for y in range(height):
        for x in range(width):
            inside = d <= y < height - d and d <= x < width - d
            around = label[max(0, y - d) : y + d + 1, max(0, x - d) : x + d + 1]
            near = not inside or bool((around != label[y, x]).any())
            assert found[y, x] == (near and label[y, x] != 255)


@given(labels, st.integers(0, 2**32 - 1))
@property_test
def test_counts_equal_those_of_erosion_class_by_class(label: np.ndarray, seed: int) -> None:
    prediction = np.random.default_rng(seed).integers(0, 3, label.shape, dtype=np.uint8)
    expected = by_hand(prediction, label, 3, compute_boundary_width(*label.shape))
    assert np.array_equal(count(prediction, label, 3), expected)


@pytest.mark.parametrize("shape", [(96, 128), (120, 75)])
def test_counts_of_larger_masks_equal_those_of_erosion(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 4, (shape[0] // 15 + 1, shape[1] // 15 + 1), dtype=np.uint8)
    label = np.kron(coarse, np.ones((15, 15), dtype=np.uint8))[: shape[0], : shape[1]].copy()
    prediction = np.roll(label, (2, 3), (0, 1))
    label[10:13, 5:40] = 255
    assert compute_boundary_width(*shape) == 3
    found = count(prediction, label, 4)
    assert np.array_equal(found, by_hand(prediction, label, 4, 3))
    assert 0 < compute_metrics(found).miou < 1


def test_the_width_is_2_percent_of_the_diagonal_and_at_least_1() -> None:
    assert compute_boundary_width(480, 640) == 16
    assert compute_boundary_width(375, 500) == round(0.02 * 625) == 12  # 12.5 is rounded to even, as in their code
    assert compute_boundary_width(3, 4) == 1


@given(labels)
@property_test
def test_a_perfect_prediction_has_a_boundary_iou_of_1(label: np.ndarray) -> None:
    prediction = np.where(label == 255, 1, label).astype(np.uint8)
    found = compute_metrics(count(prediction, label, 3)).miou
    assert math.isnan(found) if (label == 255).all() else found == 1


@given(labels, st.integers(0, 2**32 - 1))
@property_test
def test_predictions_on_ignored_pixels_are_not_counted(label: np.ndarray, seed: int) -> None:
    prediction = np.random.default_rng(seed).integers(0, 3, label.shape, dtype=np.uint8)
    other = np.where(label == 255, (prediction + 1) % 3, prediction).astype(np.uint8)
    assert np.array_equal(count(prediction, label, 3), count(other, label, 3))


def test_the_boundary_of_a_mask_that_fills_the_image_is_the_image_border() -> None:
    flat = np.zeros((100, 100), dtype=np.uint8)
    d = compute_boundary_width(100, 100)
    assert d == 3
    assert count(flat, flat, 2).tolist() == [[100**2 - 94**2] * 3, [0, 0, 0]]


def test_a_shifted_prediction_loses_more_boundary_iou_than_iou() -> None:
    label = np.zeros((200, 200), dtype=np.uint8)
    label[50:150, 50:150] = 1
    prediction = np.roll(label, 4, 1)
    area = 96 * 100 / (104 * 100)
    assert compute_metrics(count(prediction, label, 2)).class_iou[1] < area - 0.2


def test_boundaries_of_one_pixel_and_of_255_classes() -> None:
    one = np.array([[0]], dtype=np.uint8)
    assert count(one, one, 1).tolist() == [[1, 1, 1]]
    every = np.arange(255, dtype=np.uint8)[None]
    assert np.array_equal(count(every, every, 255), np.ones((255, 3)))
