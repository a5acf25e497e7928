"""Scores and predictions of a batch of images, with sliding windows and test-time augmentation."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor

from fcnlab.kernels.argmax import argmax_classes
from fcnlab.models import FCN
from fcnlab.training.fused_prediction import FusedPrediction, can_fuse_prediction
from fcnlab.training.protocol import Protocol, Size, scale_size

Model = Callable[[Tensor], Tensor]
"""Maps normalized images [B, C, H, W] to scores (logits) [B, num_classes, H, W]."""
Predictor = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Maps normalized images [B, C, H, W] to classes, uint8 [B, H, W], and a bool scalar: whether a score is nan."""


def create_predictor(model: FCN, protocol: Protocol, device: torch.device) -> Predictor:
    """Create the function that predicts the classes of images under a protocol.

    On the CPU the last upsampling and the choice of the class are one operation where possible, which needs a fraction
    of the time and memory of `compute_scores`. The classes are equal, except where rounding decides between two.

    Args:
        model: the network, in eval mode. Its weights must not change as long as the function is used.
        protocol: windows, flips and scales.
        device: device of the model.

    Returns:
        The function, to be called in the context of autocast.
    """
    fused = FusedPrediction(model) if protocol == Protocol() and can_fuse_prediction(model, device) else None

    def predict(images: Tensor) -> tuple[Tensor, Tensor]:
        if fused is not None:
            scores = fused.compute_scores(images)
            return fused.classify(scores, images.shape[-2:]), contain_nan(scores)
        scores = compute_scores(protocol, model, images)
        return predict_classes(scores), contain_nan(scores)

    return predict


def compute_scores(protocol: Protocol, model: Model, images: Tensor) -> Tensor:
    """Compute the scores of a batch of images under a protocol, as in mmsegmentation.

    Without augmentation these are the scores of the model, averaged where windows overlap. With augmentation they are
    probabilities: the softmax of each view's scores at the size of the image, averaged over the views. Images and
    scores are resized bilinearly, images with antialiasing.

    Args:
        protocol: windows, flips and scales.
        model: the network, in eval mode.
        images: normalized, [B, C, H, W].

    Returns:
        Scores [B, num_classes, H, W]; the predicted class of a pixel has the greatest one.
    """
    if not protocol.is_augmented:
        return _slide_window(protocol, model, images)
    height, width = images.shape[-2:]
    total: Tensor | float = 0.0
    views = list(product(protocol.scales, (False, True) if protocol.flip else (False,)))
    for scale, flip in views:
        view = _resize(images, scale_size((height, width), scale), antialias=True)
        scores = _slide_window(protocol, model, view.flip(-1) if flip else view)
        scores = _resize(scores.flip(-1) if flip else scores, (height, width))
        total = total + scores.float().softmax(1)
    assert isinstance(total, Tensor), "a protocol has at least one view"
    return total / len(views)


def _resize(maps: Tensor, size: Size, *, antialias: bool = False) -> Tensor:
    if tuple(maps.shape[-2:]) == size:
        return maps
    return F.interpolate(maps.float(), size=size, mode="bilinear", align_corners=False, antialias=antialias)


def _slide_window(protocol: Protocol, model: Model, images: Tensor) -> Tensor:
    """Compute scores window by window; images that are not larger than the window are not divided."""
    if protocol.window is None or protocol.stride is None:
        return _run_channels_last(model, images)
    height, width = images.shape[-2:]
    if height <= protocol.window[0] and width <= protocol.window[1]:
        return _run_channels_last(model, images)
    total: Tensor | None = None
    overlaps = images.new_zeros(height, width)
    for rows in _window_slices(height, protocol.window[0], protocol.stride[0]):
        for columns in _window_slices(width, protocol.window[1], protocol.stride[1]):
            scores = _run_channels_last(model, images[..., rows, columns]).float()
            if total is None:
                total = scores.new_zeros(*scores.shape[:2], height, width)
            total[..., rows, columns] += scores
            overlaps[rows, columns] += 1
    assert total is not None, "an image has at least one window"
    return total / overlaps


def _window_slices(length: int, window: int, stride: int) -> Iterator[slice]:
    """Yield the windows along one side; the last one ends at the border of the image."""
    steps = max(0, -(-(length - window) // stride))
    for step in range(steps + 1):
        end = min(step * stride + window, length)
        yield slice(max(0, end - window), end)


def _run_channels_last(model: Model, images: Tensor) -> Tensor:
    return model(images.contiguous(memory_format=torch.channels_last))


def contain_nan(scores: Tensor) -> Tensor:
    """Return whether a score is not a number, without synchronizing with the device.

    Args:
        scores: scores of any shape.

    Returns:
        A bool scalar on the device of the scores.
    """
    return scores.amax().isnan()  # one pass without a temporary tensor


def predict_classes(scores: Tensor) -> Tensor:
    """Return the class with the greatest score at each pixel, the first of equal ones.

    Args:
        scores: [B, num_classes, H, W], num_classes at most 255.

    Returns:
        Classes, uint8 [B, H, W].
    """
    if scores.device.type != "cpu":
        return scores.argmax(1).to(torch.uint8)
    batch, _, height, width = scores.shape
    if scores.stride(3) != 1:
        scores = scores.contiguous()
    if scores.stride(2) == width:
        return argmax_classes(scores.flatten(2)).view(batch, height, width)
    return torch.stack([argmax_classes(image.movedim(0, 1)) for image in scores])
