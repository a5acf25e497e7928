"""The Lovász-Softmax loss: Berman, Triki, Blaschko, CVPR 2018, section 3."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fcnlab.constants import IGNORE_INDEX
from fcnlab.kernels import lovasz as kernel


def lovasz_softmax(scores: Tensor, labels: Tensor) -> Tensor:
    """Compute the Lovász-Softmax loss: on the CPU by a C kernel, or by segmentation_models_pytorch without a compiler.

    Args:
        scores: float32 [B, num_classes, H, W], before the softmax.
        labels: uint8 [B, H, W], 255 for ignored pixels.

    Returns:
        The mean over the classes that occur, a scalar; 0, with a gradient of 0, if all pixels are ignored.
    """
    if scores.device.type != "cpu":
        return lovasz_softmax_without_sync(scores, labels)
    if kernel.is_available():
        probabilities = scores.softmax(1).movedim(1, 0).flatten(1).contiguous()
        loss: Tensor = _LovaszOfProbabilities.apply(probabilities, labels.flatten())
        return loss
    if not bool((labels != IGNORE_INDEX).any()):
        return 0 * scores.sum()
    from segmentation_models_pytorch.losses import LovaszLoss  # the import takes a second

    fallback: Tensor = LovaszLoss("multiclass", ignore_index=IGNORE_INDEX)(scores, labels.long())
    return fallback


class _LovaszOfProbabilities(torch.autograd.Function):
    """Loss of probabilities [num_classes, N] for labels [N]; the gradient is computed together with the loss."""

    @staticmethod
    def forward(ctx: Any, probabilities: Tensor, labels: Tensor) -> Tensor:
        loss, gradient = kernel.lovasz_of_probabilities(probabilities, labels)
        ctx.save_for_backward(gradient)
        return loss

    @staticmethod
    def backward(ctx: Any, *grad_loss: Tensor) -> tuple[Tensor, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * grad_loss[0], None


def lovasz_softmax_without_sync(scores: Tensor, labels: Tensor) -> Tensor:
    """Compute the Lovász-Softmax loss without synchronizing with the device.

    Equal to that of segmentation_models_pytorch, which selects labeled pixels and occurring classes by their values and
    so makes the host wait many times. Here ignored pixels are kept with an error of 0, and absent classes with a weight
    of 0.

    Args:
        scores: float32 [B, num_classes, H, W], before the softmax.
        labels: uint8 [B, H, W], 255 for ignored pixels.

    Returns:
        The mean over the classes that occur, a scalar; 0 if all pixels are ignored.
    """
    num_classes = scores.shape[1]
    labels = labels.flatten()
    labeled = labels != IGNORE_INDEX
    probabilities = scores.softmax(1).movedim(1, 0).reshape(num_classes, -1)
    is_class = labels == torch.arange(num_classes, device=labels.device)[:, None]
    errors = (is_class.float() - probabilities).abs() * labeled
    errors, order = errors.sort(dim=1, descending=True)
    is_class = is_class.gather(1, order)
    # Integer sums are exact; float sums are neither exact nor deterministic on CUDA.
    seen_of_class = is_class.cumsum(1, dtype=torch.int32)
    seen_of_others = (~is_class & labeled.expand_as(is_class).gather(1, order)).cumsum(1, dtype=torch.int32)
    pixels = seen_of_class[:, -1:]
    jaccard = 1 - (pixels - seen_of_class).float() / (pixels + seen_of_others).clamp(min=1)
    steps = torch.cat([jaccard[:, :1], jaccard.diff(dim=1)], 1)
    occurs = pixels[:, 0] > 0
    return ((errors * steps).sum(1) * occurs).sum() / occurs.sum().clamp(min=1)
