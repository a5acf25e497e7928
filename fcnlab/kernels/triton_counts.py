"""Triton kernel that counts the pixels of each class in predictions, in labels and in both."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from fcnlab.constants import IGNORE_INDEX

_ROWS = 16
"""Classes of one program, which compares each of its pixels with each of them."""
_BLOCK = 256
_STEPS = 16
"""A program counts `_STEPS` blocks of `_BLOCK` pixels."""


def count_pixels(predictions: Tensor, labels: Tensor, num_classes: int, *, masked: bool) -> Tensor:
    """Count the pixels of each class.

    Args:
        predictions: uint8 [N, H, W]; values of `num_classes` and above belong to no class.
        labels: uint8 [N, H, W]; values of `num_classes` and above belong to no class.
        num_classes: number of classes, at most 255.
        masked: count predictions only where the label is a class.

    Returns:
        Counts int64 [N, num_classes, 3]: pixels of each class in both, in the prediction, and in the label.
    """
    images, pixels = len(labels), labels[0].numel() if len(labels) else 0
    counts = torch.zeros(images, num_classes, 3, dtype=torch.int32, device=labels.device)
    if images and pixels:
        grid = (images, triton.cdiv(pixels, _BLOCK * _STEPS), triton.cdiv(num_classes, _ROWS))
        _count[grid](
            predictions.contiguous(),
            labels.contiguous(),
            counts,
            pixels,
            CLASSES=num_classes,
            NONE=IGNORE_INDEX,
            MASKED=masked,
            ROWS=_ROWS,
            BLOCK=_BLOCK,
            STEPS=_STEPS,
        )
    return counts.long()


@triton.jit  # type: ignore[untyped-decorator]
def _count(  # type: ignore[no-untyped-def]
    predictions,
    labels,
    counts,
    pixels,
    CLASSES: tl.constexpr,  # noqa: N803
    NONE: tl.constexpr,  # noqa: N803
    MASKED: tl.constexpr,  # noqa: N803
    ROWS: tl.constexpr,  # noqa: N803
    BLOCK: tl.constexpr,  # noqa: N803
    STEPS: tl.constexpr,  # noqa: N803
):
    """Count `BLOCK * STEPS` pixels of one image for `ROWS` classes; programs are summed by atomic integer additions."""
    image = tl.program_id(0)
    first = image.to(tl.int64) * pixels
    start = tl.program_id(1) * (BLOCK * STEPS)
    classes = tl.program_id(2) * ROWS + tl.arange(0, ROWS)
    both = tl.zeros([ROWS, BLOCK], dtype=tl.int32)
    predicted = tl.zeros([ROWS, BLOCK], dtype=tl.int32)
    labeled = tl.zeros([ROWS, BLOCK], dtype=tl.int32)
    for step in range(STEPS):
        pixel = start + step * BLOCK + tl.arange(0, BLOCK)
        inside = pixel < pixels
        label = tl.load(labels + first + pixel, mask=inside, other=NONE).to(tl.int32)
        prediction = tl.load(predictions + first + pixel, mask=inside, other=NONE).to(tl.int32)
        if MASKED:
            prediction = tl.where(label < CLASSES, prediction, NONE)
        of_label = (classes[:, None] == label[None, :]).to(tl.int32)
        of_prediction = (classes[:, None] == prediction[None, :]).to(tl.int32)
        both += of_label * of_prediction
        predicted += of_prediction
        labeled += of_label
    at = counts + (image * CLASSES + classes) * 3
    present = classes < CLASSES
    tl.atomic_add(at, tl.sum(both, axis=1), mask=present, sem="relaxed")
    tl.atomic_add(at + 1, tl.sum(predicted, axis=1), mask=present, sem="relaxed")
    tl.atomic_add(at + 2, tl.sum(labeled, axis=1), mask=present, sem="relaxed")
