"""Checks of the Triton counts; run by `test_triton.py` in another process."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from fcnlab.kernels.switch import is_triton_available
from fcnlab.kernels.triton_counts import count_pixels
from fcnlab.metrics.boundary import count_boundaries
from fcnlab.metrics.confusion import count_areas
from tests.kernels.on_triton import COMPILED, DEVICE, examples
from tests.metrics.test_boundary import by_hand as boundary_by_hand

slow = examples(interpreted=10, compiled=15)
class_counts = st.sampled_from([1, 5, 21, 255]) if COMPILED else st.integers(1, 34)


def by_hand(predictions: Tensor, labels: Tensor, num_classes: int, *, masked: bool) -> Tensor:
    rows = []
    for prediction, label in zip(predictions.tolist(), labels.tolist(), strict=True):
        p, t = np.array(prediction, dtype=np.int64), np.array(label, dtype=np.int64)
        counted = t < num_classes if masked else np.ones_like(t, dtype=bool)
        of = [((p == c) & counted, t == c) for c in range(num_classes)]
        rows.append([[(one & other).sum(), one.sum(), other.sum()] for one, other in of])
    return torch.tensor(np.array(rows, dtype=np.int64).reshape(len(labels), num_classes, 3))


@st.composite
def pairs(draw: st.DrawFn) -> tuple[Tensor, Tensor, int]:
    """Draw predictions and labels of images of one size, and the number of classes."""
    num_classes = draw(class_counts)
    shape = (draw(st.integers(1, 3)), draw(st.integers(1, 24)), draw(st.integers(1, 24)))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 99)))
    predictions = torch.randint(0, num_classes, shape, generator=generator).to(torch.uint8)
    labels = torch.randint(0, num_classes, shape, generator=generator).to(torch.uint8)
    ignored = torch.rand(shape, generator=generator) < draw(st.sampled_from([0.0, 0.3, 1.0]))
    return predictions, labels.masked_fill(ignored, 255), num_classes


def test_the_kernel_is_available() -> None:
    assert is_triton_available(DEVICE)


@given(pairs())
@slow
def test_areas_are_counted_exactly(pair: tuple[Tensor, Tensor, int]) -> None:
    predictions, labels, num_classes = pair
    found = count_areas(predictions.to(DEVICE), labels.to(DEVICE), num_classes)
    assert found.dtype == torch.int64
    assert torch.equal(found.cpu(), by_hand(predictions, labels, num_classes, masked=True))


@given(pairs())
@slow
def test_predictions_on_ignored_pixels_count_unless_masked(pair: tuple[Tensor, Tensor, int]) -> None:
    predictions, labels, num_classes = pair
    found = count_pixels(predictions.to(DEVICE), labels.to(DEVICE), num_classes, masked=False)
    assert torch.equal(found.cpu(), by_hand(predictions, labels, num_classes, masked=False))


@given(pairs())
@slow
def test_boundaries_are_counted_exactly(pair: tuple[Tensor, Tensor, int]) -> None:
    predictions, labels, num_classes = pair
    few = min(num_classes, 5)
    predictions, labels = predictions % few, labels.masked_fill(labels != 255, 0) + (labels != 255) * (labels % few)
    found = count_boundaries(predictions.to(DEVICE), labels.to(DEVICE), few).cpu()
    for one, prediction, label in zip(found, predictions.numpy(), labels.numpy(), strict=True):
        assert np.array_equal(one, boundary_by_hand(prediction, label, few, 1))


@pytest.mark.parametrize(
    ("shape", "num_classes"),
    [((2, 97, 131), 3), ((1, 64, 64), 3), ((0, 3, 3), 3), ((2, 0, 4), 3), ((1, 24, 24), 254), ((1, 24, 24), 255)],
)
@pytest.mark.parametrize("masked", [True, False])
def test_images_of_several_programs_are_counted(shape: tuple[int, int, int], num_classes: int, masked: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    predictions = torch.randint(0, num_classes, shape, generator=generator).to(torch.uint8)
    labels = torch.randint(0, num_classes + 1, shape, generator=generator).to(torch.uint8)
    labels[labels == num_classes] = 255
    found = count_pixels(predictions.to(DEVICE), labels.to(DEVICE), num_classes, masked=masked)
    assert torch.equal(found.cpu(), by_hand(predictions, labels, num_classes, masked=masked))


def test_views_of_larger_tensors_are_counted() -> None:
    base = torch.randint(0, 3, (2, 8, 10), generator=torch.Generator().manual_seed(0)).to(torch.uint8).to(DEVICE)
    part = base[:, 1:7, 2:9]
    found = count_areas(part, part.flip(0), 3)
    assert torch.equal(found.cpu(), by_hand(part.cpu(), part.flip(0).cpu(), 3, masked=True))
