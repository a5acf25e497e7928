"""Scores and predictions of a batch of images of one shape, under a protocol."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor

from fcnlab.training.protocol import Protocol, Size

Model = Callable[[Tensor], Tensor]
"""Normalised images [B, 3, H, W] to scores (logits) [B, C, H, W]."""


def compute_scores(protocol: Protocol, model: Model, images: Tensor) -> Tensor:
    """Scores [B, C, H, W] of normalised images [B, 3, H, W], whose greatest is the prediction.

    Without augmentation they are the model's, averaged where windows overlap. With it they are probabilities: the
    softmax of each view's scores at the image's own size, averaged over the views. Images are resized bilinearly, with
    antialiasing; scores bilinearly. As mmsegmentation's `slide` mode and test-time augmentation.
    """
    if not protocol.is_augmented:
        return _windowed(protocol, model, images)
    height, width = images.shape[-2:]
    total: Tensor | float = 0.0
    views = list(product(protocol.scales, (False, True) if protocol.flip else (False,)))
    for scale, flip in views:
        view = _resized(images, (max(1, round(scale * height)), max(1, round(scale * width))), antialias=True)
        scores = _windowed(protocol, model, view.flip(-1) if flip else view)
        scores = _resized(scores.flip(-1) if flip else scores, (height, width))
        total = total + scores.float().softmax(1)
    assert isinstance(total, Tensor), "there is one view at least"
    return total / len(views)


def _resized(maps: Tensor, size: Size, *, antialias: bool = False) -> Tensor:
    if tuple(maps.shape[-2:]) == size:
        return maps
    return F.interpolate(maps.float(), size=size, mode="bilinear", align_corners=False, antialias=antialias)


def _windowed(protocol: Protocol, model: Model, images: Tensor) -> Tensor:
    """Scores of images that go whole, or window by window where they are larger than the window."""
    if protocol.window is None or protocol.stride is None:
        return _laid_out(model, images)
    height, width = images.shape[-2:]
    if height <= protocol.window[0] and width <= protocol.window[1]:
        return _laid_out(model, images)
    total: Tensor | None = None
    times = images.new_zeros(height, width)
    for rows in _spans(height, protocol.window[0], protocol.stride[0]):
        for columns in _spans(width, protocol.window[1], protocol.stride[1]):
            scores = _laid_out(model, images[..., rows, columns]).float()
            if total is None:
                total = scores.new_zeros(*scores.shape[:2], height, width)
            total[..., rows, columns] += scores
            times[rows, columns] += 1
    assert total is not None, "there is one window at least"
    return total / times


def _spans(length: int, window: int, stride: int) -> Iterator[slice]:
    """Windows along one side. The last ends with the image: it is moved back, and so overlaps more."""
    steps = max(0, -(-(length - window) // stride))
    for step in range(steps + 1):
        end = min(step * stride + window, length)
        yield slice(max(0, end - window), end)


def _laid_out(model: Model, images: Tensor) -> Tensor:
    return model(images.contiguous(memory_format=torch.channels_last))


def predict_classes(scores: Tensor) -> Tensor:
    """The class of greatest score at each pixel, the first where several are equal: [B, C, H, W] -> uint8 [B, H, W].

    As `scores.argmax(1)`, which on the CPU takes up to seven times as long: torch's maximum and comparison use vector
    instructions, its argmax does not. Image by image, so that what is in between stays in the cache.
    """
    classes = scores.shape[1]
    if scores.device.type != "cpu":
        return scores.argmax(1).to(torch.uint8)
    rank = torch.arange(classes, 0, -1, dtype=torch.uint8)[:, None, None]
    found = torch.empty(len(scores), *scores.shape[2:], dtype=torch.uint8)
    for image, into in zip(scores, found, strict=True):
        if image.stride(0) == 1:  # channels last, which the vector instructions do not go along
            image = image.contiguous()
        greatest = (image == image.amax(0)).view(torch.uint8).mul_(rank).amax(0)
        # Nothing equals its maximum where a score is nan; there it is as torch has it.
        into.copy_(classes - greatest if greatest.all() else image.argmax(0))
    return found
