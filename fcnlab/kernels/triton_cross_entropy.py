"""Triton kernel for the cross entropy of scores: the loss is summed and the scores are replaced by their gradient."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl
from torch import Tensor

from fcnlab.data.base import IGNORE

if TYPE_CHECKING:
    from fcnlab.kernels.cross_entropy import PixelLoss


def launch(scores: Tensor, labels: Tensor, scales: Tensor, loss: PixelLoss) -> Tensor:
    """Replace scores by the gradient of their summed loss, in place, and return the loss.

    The scores are read once and written once; softmax, loss and gradient are float32. The loss is summed in a fixed
    order, so that two runs give the same bits. Nothing synchronises with the host.

    Args:
        scores: [n, C, pixels], float32, float16 or bfloat16; C at most 256; contiguous along pixels.
        labels: uint8 [n, pixels], contiguous: classes, or 255 for an ignored pixel, whose gradient is 0. Any other
            label makes the loss nan.
        scales: float32 [n], the factor of each row's loss.
        loss: the loss of one pixel.

    Returns:
        The loss, a float32 scalar on the device of the scores.
    """
    n, classes, pixels = scores.shape
    assert n * pixels < 2**31, "pixels are numbered in 32 bits"
    rows = max(2, triton.next_power_of_2(classes))
    block = min(256, max(32, 4096 // rows))
    programs = triton.cdiv(n * pixels, block)
    partial = torch.empty(programs, dtype=torch.float32, device=scores.device)
    _cross_entropy[(programs,)](
        scores,
        labels,
        scales,
        loss.own,
        loss.even,
        partial,
        n * pixels,
        scores.stride(0),
        scores.stride(1),
        CLASSES=classes,
        PIXELS=pixels,
        IGNORED=IGNORE,
        SMOOTH=loss.smooth,
        ROWS=rows,
        BLOCK=block,
        num_warps=8 if rows * block > 4096 else 4,
    )
    return partial.sum()


@triton.jit  # type: ignore[untyped-decorator]
def _cross_entropy(  # type: ignore[no-untyped-def]
    scores,
    labels,
    scales,
    own,
    even,
    partial,
    total,
    stride_n,
    stride_class,
    CLASSES: tl.constexpr,  # noqa: N803
    PIXELS: tl.constexpr,  # noqa: N803
    IGNORED: tl.constexpr,  # noqa: N803
    SMOOTH: tl.constexpr,  # noqa: N803
    ROWS: tl.constexpr,  # noqa: N803
    BLOCK: tl.constexpr,  # noqa: N803
):
    """Process one block of pixels; pixels are numbered through all n, so that small rows fill a block together."""
    program = tl.program_id(0)
    pixel = program * BLOCK + tl.arange(0, BLOCK)
    inside = pixel < total
    n = pixel // PIXELS
    label = tl.load(labels + pixel, mask=inside, other=IGNORED).to(tl.int32)
    counts = label != IGNORED
    valid = label < CLASSES
    own_weight = tl.load(own + label, mask=valid, other=0.0)
    scale = tl.load(scales + n, mask=inside, other=0.0)

    classes = tl.arange(0, ROWS)
    offset = n.to(tl.int64) * stride_n + pixel % PIXELS
    at = scores + classes[:, None].to(tl.int64) * stride_class + offset[None, :]
    present = (classes < CLASSES)[:, None] & inside[None, :]
    score = tl.load(at, mask=present, other=float("-inf")).to(tl.float32)
    # Pixels beyond the end get scores of 0, so that nothing is infinite minus infinite there.
    score = tl.where(inside[None, :], score, 0.0)
    score -= tl.max(score, axis=0)[None, :]
    exponential = tl.exp(score)
    sum_exponential = tl.sum(exponential, axis=0)
    log_sum = tl.log(sum_exponential)

    is_label = (classes[:, None] == label[None, :]) & valid[None, :]
    lost = own_weight * (log_sum - tl.sum(tl.where(is_label, score, 0.0), axis=0))
    weight = own_weight
    if SMOOTH:
        even_weight = tl.load(even + classes, mask=classes < CLASSES, other=0.0)
        differences = tl.where((classes < CLASSES)[:, None], log_sum[None, :] - score, 0.0)
        lost += tl.sum(even_weight[:, None] * differences, axis=0)
        weight += tl.sum(even_weight, axis=0)
    gradient = exponential * (weight / sum_exponential)[None, :]
    gradient -= tl.where(is_label, own_weight[None, :], 0.0)
    if SMOOTH:
        gradient -= even_weight[:, None]
    gradient = tl.where(counts[None, :], gradient * scale[None, :], 0.0)
    tl.store(at, gradient.to(scores.dtype.element_ty), mask=present)

    lost = tl.where(counts, lost * scale, 0.0)
    lost = tl.where(counts & (label >= CLASSES), float("nan"), lost)
    tl.store(partial + program, tl.sum(lost, axis=0))
