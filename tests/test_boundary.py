"""Boundary IoU, against the authors' definition by brute force and against scipy's erosion."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from fcnlab.metrics.boundary import compute_boundary_width, count_image_boundaries, find_boundaries
from fcnlab.metrics.confusion import compute_metrics

law = settings(deadline=None, max_examples=60)
labels = hnp.arrays(
    np.uint8, st.tuples(st.integers(1, 12), st.integers(1, 12)), elements=st.sampled_from([0, 1, 2, 255])
)


def eroded(mask: np.ndarray, times: int) -> np.ndarray:
    """The authors' `mask_to_boundary`: a frame of background, and erosion with 3x3 ones, so many times."""
    framed = np.pad(mask, 1)
    return ndimage.binary_erosion(framed, np.ones((3, 3)), iterations=times, border_value=1)[1:-1, 1:-1]


def by_hand(prediction: np.ndarray, label: np.ndarray, classes: int, d: int) -> np.ndarray:
    """Class by class, as the paper says it; ignored pixels belong to no class on either side."""
    rows = []
    for c in range(classes):
        ours, truth = (prediction == c) & (label != 255), label == c
        ours, truth = ours & ~eroded(ours, d), truth & ~eroded(truth, d)
        rows.append([(ours & truth).sum(), ours.sum(), truth.sum()])
    return np.array(rows)


@given(labels, st.integers(1, 5))
@law
def test_a_boundary_is_what_lies_within_chessboard_distance_of_anything_else(label: np.ndarray, d: int) -> None:
    height, width = label.shape
    found = find_boundaries(torch.from_numpy(label)[None], d)[0].numpy()
    for y in range(height):
        for x in range(width):
            inside = d <= y < height - d and d <= x < width - d
            around = label[max(0, y - d) : y + d + 1, max(0, x - d) : x + d + 1]
            near = not inside or bool((around != label[y, x]).any())
            assert found[y, x] == (near and label[y, x] != 255)


@given(labels, st.integers(0, 2**32 - 1))
@law
def test_counts_are_those_of_erosion_class_by_class(label: np.ndarray, seed: int) -> None:
    prediction = np.random.default_rng(seed).integers(0, 3, label.shape, dtype=np.uint8)
    expected = by_hand(prediction, label, 3, compute_boundary_width(*label.shape))
    assert np.array_equal(count_image_boundaries(prediction, label, 3), expected)


@pytest.mark.parametrize("shape", [(96, 128), (120, 75)])
def test_counts_of_larger_masks_are_those_of_erosion_too(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 4, (shape[0] // 15 + 1, shape[1] // 15 + 1), dtype=np.uint8)
    label = np.kron(coarse, np.ones((15, 15), dtype=np.uint8))[: shape[0], : shape[1]].copy()
    prediction = np.roll(label, (2, 3), (0, 1))
    label[10:13, 5:40] = 255
    assert compute_boundary_width(*shape) == 3
    found = count_image_boundaries(prediction, label, 4)
    assert np.array_equal(found, by_hand(prediction, label, 4, 3))
    assert 0 < compute_metrics(found).miou < 1


def test_the_distance_is_two_per_cent_of_the_diagonal_and_one_pixel_at_least() -> None:
    assert compute_boundary_width(480, 640) == 16
    assert (
        compute_boundary_width(375, 500) == round(0.02 * 625) == 12
    )  # 12.5, rounded to even as the authors' int(round()) does
    assert compute_boundary_width(3, 4) == 1


@given(labels)
@law
def test_a_perfect_prediction_is_worth_one_whatever_is_predicted_where_nothing_counts(label: np.ndarray) -> None:
    prediction = np.where(label == 255, 1, label).astype(np.uint8)
    found = compute_metrics(count_image_boundaries(prediction, label, 3)).miou
    assert math.isnan(found) if (label == 255).all() else found == 1


@given(labels, st.integers(0, 2**32 - 1))
@law
def test_predictions_on_ignored_pixels_change_nothing(label: np.ndarray, seed: int) -> None:
    prediction = np.random.default_rng(seed).integers(0, 3, label.shape, dtype=np.uint8)
    other = np.where(label == 255, (prediction + 1) % 3, prediction).astype(np.uint8)
    assert np.array_equal(count_image_boundaries(prediction, label, 3), count_image_boundaries(other, label, 3))


def test_masks_of_one_class_have_the_images_border_for_a_boundary() -> None:
    flat = np.zeros((100, 100), dtype=np.uint8)
    d = compute_boundary_width(100, 100)
    assert d == 3
    assert count_image_boundaries(flat, flat, 2).tolist() == [[100**2 - 94**2] * 3, [0, 0, 0]]


def test_a_prediction_that_is_shifted_inside_loses_more_boundary_than_area() -> None:
    label = np.zeros((200, 200), dtype=np.uint8)
    label[50:150, 50:150] = 1
    prediction = np.roll(label, 4, 1)
    area = 96 * 100 / (104 * 100)
    assert compute_metrics(count_image_boundaries(prediction, label, 2)).class_iou[1] < area - 0.2


def test_the_work_on_one_pixel_and_on_as_many_classes_as_there_can_be() -> None:
    one = np.array([[0]], dtype=np.uint8)
    assert count_image_boundaries(one, one, 1).tolist() == [[1, 1, 1]]
    every = np.arange(255, dtype=np.uint8)[None]
    assert np.array_equal(count_image_boundaries(every, every, 255), np.ones((255, 3)))
