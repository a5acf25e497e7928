"""Tests of predictions from scores, sliding windows and test-time augmentation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fcnlab.training.prediction import compute_scores, predict_classes
from fcnlab.training.protocol import Protocol
from tests.training.test_evaluate import Net


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("num_classes", [1, 2, 21, 255])
def test_predictions_equal_the_argmax(dtype: torch.dtype, layout: torch.memory_format, num_classes: int) -> None:
    scores = torch.randint(-4, 4, (2, num_classes, 9, 11)).to(dtype).contiguous(memory_format=layout)
    for some in (scores, scores[..., 2:7, 1:9]):
        found = predict_classes(some)
        assert found.dtype == torch.uint8 and np.array_equal(found, some.float().argmax(1))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_predictions_equal_the_argmax_of_scores_that_are_not_finite(value: float) -> None:
    scores = torch.randn(2, 5, 4, 4)
    scores[0, 2, 1, 1] = value
    scores[1, :, 3, 3] = value
    assert np.array_equal(predict_classes(scores), scores.argmax(1))


def row_sums(images: Tensor) -> Tensor:
    """Return scores that depend on the row, the column and the value of each pixel."""
    height, width = images.shape[-2:]
    position = torch.arange(height)[:, None] * 100.0 + torch.arange(width)
    return torch.stack([images.sum(1), position.expand(len(images), height, width)], 1)


@pytest.mark.parametrize("stride", [(2, 3), (4, 5), (1, 1), (3, 4)])
@pytest.mark.parametrize("size", [(4, 5), (9, 13), (4, 11), (3, 20), (10, 5)])
def test_windows_cover_the_image_and_are_averaged_where_they_overlap(
    size: tuple[int, int], stride: tuple[int, int]
) -> None:
    height, width, window = *size, (4, 5)
    images = torch.randn(2, 3, *size)
    total, overlaps = torch.zeros(2, 2, *size), torch.zeros(size)
    # as slide_inference of mmsegmentation
    h_grids = max(height - window[0] + stride[0] - 1, 0) // stride[0] + 1
    w_grids = max(width - window[1] + stride[1] - 1, 0) // stride[1] + 1
    for h in range(h_grids):
        for w in range(w_grids):
            y2, x2 = min(h * stride[0] + window[0], height), min(w * stride[1] + window[1], width)
            y1, x1 = max(y2 - window[0], 0), max(x2 - window[1], 0)
            total[:, :, y1:y2, x1:x2] += row_sums(images[:, :, y1:y2, x1:x2])
            overlaps[y1:y2, x1:x2] += 1
    assert overlaps.min() >= 1
    found = compute_scores(Protocol(window=window, stride=stride), row_sums, images)
    torch.testing.assert_close(found, total / overlaps)


def test_augmented_scores_are_the_mean_probabilities_of_the_views() -> None:
    model, images = Net().eval(), torch.randn(2, 3, 12, 17)
    with torch.inference_mode():
        views = []
        for scale in (0.5, 1.0):
            size = (round(12 * scale), round(17 * scale))
            view = nn.functional.interpolate(images, size, mode="bilinear", antialias=True) if scale != 1 else images
            for flip in (False, True):
                scores = model(view.flip(3)).flip(3) if flip else model(view)
                views.append(nn.functional.interpolate(scores, (12, 17), mode="bilinear").softmax(1))
        found = compute_scores(Protocol(scales=(0.5, 1.0), flip=True), model, images)
    torch.testing.assert_close(found, torch.stack(views).mean(0), rtol=1e-4, atol=1e-5)
    assert [tuple(size) for size in model.input_shapes[-4:]] == [(2, 3, 6, 8)] * 2 + [(2, 3, 12, 17)] * 2


def test_with_flips_a_mirrored_image_has_the_mirrored_scores() -> None:
    model, images = Net().eval(), torch.randn(1, 3, 8, 10)
    with torch.inference_mode():
        one, other = (compute_scores(Protocol(flip=True), model, some) for some in (images, images.flip(3)))
    torch.testing.assert_close(one, other.flip(3))
    assert not torch.allclose(model(images), model(images.flip(3)).flip(3))
