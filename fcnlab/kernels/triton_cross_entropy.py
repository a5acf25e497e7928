"""Triton kernels of the cross entropy: the loss is summed, and the scores are overwritten by their gradient."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl
from torch import Tensor

from fcnlab.constants import IGNORE_INDEX

if TYPE_CHECKING:
    from fcnlab.kernels.cross_entropy import PixelLoss

_LOG2_E = tl.constexpr(1.4426950408889634)
"""log2 e; `exp2` is one instruction, `exp` five, four of which handle numbers below 1e-38."""
_MAX_FEW = 32
"""Largest number of classes for which the scores of a pixel fit the registers of one thread."""
_PIXELS = 256
"""Pixels of one program of 128 threads for few classes."""
_ELEMENTS = 2048
"""Scores of one warp: 64 for each thread, which loads up to 16 bytes at a time."""


def launch_cross_entropy(scores: Tensor, labels: Tensor, scales: Tensor, loss: PixelLoss) -> Tensor:
    """Compute the cross entropy of scores and overwrite the scores by their gradient.

    The scores are read and written once; softmax, loss and gradient are float32. The loss is summed in a fixed order,
    so that it is reproducible bit for bit. The host does not wait.

    Args:
        scores: [n, num_classes, pixels], float32, float16 or bfloat16, contiguous along pixels; at most 256 classes.
        labels: uint8 [n, pixels], contiguous: classes, or 255 for an ignored pixel, whose gradient is 0. Any other
            label makes the loss nan.
        scales: float32 [n], the factor on the loss of each row.
        loss: the loss of one pixel.

    Returns:
        The loss, a float32 scalar on the device of the scores.
    """
    n, num_classes, pixels = scores.shape
    assert n * pixels < 2**31, "pixel indices have 32 bits"
    sizes = (n * pixels, scores.stride(0), scores.stride(1))
    given = (scores, labels, scales, loss.own, loss.even)
    constants = {"CLASSES": num_classes, "PIXELS": pixels, "IGNORED": IGNORE_INDEX, "SMOOTH": loss.smooth}
    if num_classes <= _MAX_FEW:
        programs = triton.cdiv(n * pixels, _PIXELS)
        partial = torch.empty(programs, dtype=torch.float32, device=scores.device)
        _cross_entropy_of_few[(programs,)](*given, partial, *sizes, **constants, BLOCK=_PIXELS, num_warps=4)
        return partial.sum()
    rows = triton.next_power_of_2(num_classes)
    block, aligned = _block(rows, pixels)
    programs = triton.cdiv(n * pixels, block)
    partial = torch.empty(programs, dtype=torch.float32, device=scores.device)
    _cross_entropy[(programs,)](
        *given,
        partial,
        *sizes,
        **constants,
        ALIGNED=aligned,
        WIDE=(num_classes - 1) * scores.stride(1) + pixels >= 2**31,
        ROWS=rows,
        BLOCK=block,
        num_warps=min(8, max(1, rows * block // _ELEMENTS)),
    )
    return partial.sum()


def _block(rows: int, pixels: int) -> tuple[int, bool]:
    """Return the number of pixels of one program, and True if they always belong to one n."""
    block = max(64, _ELEMENTS // rows)
    divisor = pixels & -pixels  # the largest power of 2 that divides it
    return (min(block, divisor), True) if divisor >= 32 else (block, False)


@triton.jit  # type: ignore[untyped-decorator]
def _load_own_weight(own, label, CLASSES: tl.constexpr, IGNORED: tl.constexpr):  # type: ignore[no-untyped-def] # noqa: N803
    """Return masks of the labeled pixels and of those whose label is in range, and the weights of their classes."""
    counts = label != IGNORED
    valid = counts & (label < CLASSES)
    return counts, valid, tl.load(own + label, mask=valid, other=0.0)


@triton.jit  # type: ignore[untyped-decorator]
def _store_loss(to, lost, scale, label, counts, CLASSES: tl.constexpr):  # type: ignore[no-untyped-def] # noqa: N803
    """Store the summed loss of a block of pixels; nan if a label is out of range."""
    lost = tl.where(counts, lost * scale, 0.0)
    lost = tl.where(counts & (label >= CLASSES), float("nan"), lost)
    tl.store(to, tl.sum(lost, axis=0))


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
    ALIGNED: tl.constexpr,  # noqa: N803
    WIDE: tl.constexpr,  # noqa: N803
    ROWS: tl.constexpr,  # noqa: N803
    BLOCK: tl.constexpr,  # noqa: N803
):
    """Process one block of pixels; pixels are numbered across all n, so that a block can have pixels of several rows.

    An `ALIGNED` block is within one n: addresses are a scalar and an offset of 32 bits (64 if `WIDE`), and consecutive
    pixels are loaded together.
    """
    program = tl.program_id(0)
    pixel = program * BLOCK + tl.arange(0, BLOCK)
    classes = tl.arange(0, ROWS)
    step = classes.to(tl.int64) * stride_class if WIDE else classes * stride_class
    if ALIGNED:
        n = program // (PIXELS // BLOCK)
        first = (program % (PIXELS // BLOCK)) * BLOCK
        at = scores + n.to(tl.int64) * stride_n + first + (step[:, None] + tl.arange(0, BLOCK)[None, :])
        present = (classes < CLASSES)[:, None]
        label = tl.load(labels + pixel).to(tl.int32)
        scale = tl.load(scales + n)
    else:
        inside = pixel < total
        n = pixel // PIXELS
        at = scores + (n.to(tl.int64) * stride_n + pixel % PIXELS)[None, :] + step[:, None]
        present = (classes < CLASSES)[:, None] & inside[None, :]
        label = tl.load(labels + pixel, mask=inside, other=IGNORED).to(tl.int32)
        scale = tl.load(scales + n, mask=inside, other=0.0)
    score = tl.load(at, mask=present, other=float("-inf")).to(tl.float32)
    if not ALIGNED:
        # Pixels beyond the end get scores of 0, to avoid infinity minus infinity.
        score = tl.where(inside[None, :], score, 0.0)
    counts, valid, own_weight = _load_own_weight(own, label, CLASSES, IGNORED)

    score -= tl.max(score, axis=0)[None, :]
    exponential = tl.exp2(score * _LOG2_E)
    sum_exponential = tl.sum(exponential, axis=0)
    log_sum = tl.log(sum_exponential)

    is_label = classes[:, None] == tl.where(valid, label, -1)[None, :]
    lost = own_weight * (log_sum - tl.sum(tl.where(is_label, score, 0.0), axis=0))
    weight = own_weight
    if SMOOTH:
        even_weight = tl.load(even + classes, mask=classes < CLASSES, other=0.0)
        differences = tl.where((classes < CLASSES)[:, None], log_sum[None, :] - score, 0.0)
        lost += tl.sum(even_weight[:, None] * differences, axis=0)
        weight += tl.sum(even_weight, axis=0)
    # Factors per pixel are combined first, because a pixel has many scores.
    gradient = exponential * (weight * scale / sum_exponential)[None, :]
    gradient = tl.where(is_label, gradient - (own_weight * scale)[None, :], gradient)
    if SMOOTH:
        gradient -= even_weight[:, None] * (scale + tl.zeros([BLOCK], tl.float32))[None, :]
    gradient = tl.where(counts[None, :], gradient, 0.0)
    tl.store(at, gradient.to(scores.dtype.element_ty), mask=present)

    _store_loss(partial + program, lost, scale, label, counts, CLASSES)


@triton.jit  # type: ignore[untyped-decorator]
def _cross_entropy_of_few(  # type: ignore[no-untyped-def]
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
    BLOCK: tl.constexpr,  # noqa: N803
):
    """Process one block of pixels like `_cross_entropy`, with all scores of a pixel in the registers of one thread.

    The loop over classes is unrolled, so that no padded classes are computed and threads exchange no data.
    """
    program = tl.program_id(0)
    pixel = program * BLOCK + tl.arange(0, BLOCK)
    inside = pixel < total
    n = pixel // PIXELS
    label = tl.load(labels + pixel, mask=inside, other=IGNORED).to(tl.int32)
    counts, _, own_weight = _load_own_weight(own, label, CLASSES, IGNORED)
    scale = tl.load(scales + n, mask=inside, other=0.0)
    at = scores + (n.to(tl.int64) * stride_n + pixel % PIXELS)
    step = tl.zeros([], tl.int64) + stride_class

    loaded = (tl.load(at, mask=inside, other=0.0),)
    for c in tl.static_range(1, CLASSES):
        # Triton does not support unpacking inside a tuple.
        loaded = loaded + (tl.load(at + c * step, mask=inside, other=0.0),)  # type: ignore[assignment]  # noqa: RUF005
    greatest = loaded[0].to(tl.float32)
    for c in tl.static_range(1, CLASSES):
        greatest = tl.maximum(greatest, loaded[c].to(tl.float32))
    sum_exponential = tl.zeros([BLOCK], tl.float32)
    of_label = tl.zeros([BLOCK], tl.float32)
    weight = own_weight
    lost_evenly = tl.zeros([BLOCK], tl.float32)
    for c in tl.static_range(CLASSES):
        score = loaded[c].to(tl.float32) - greatest
        sum_exponential += tl.exp2(score * _LOG2_E)
        of_label = tl.where(label == c, score, of_label)
        if SMOOTH:
            even_weight = tl.load(even + c)
            weight += even_weight
            lost_evenly -= even_weight * score
    log_sum = tl.log(sum_exponential)
    lost = own_weight * (log_sum - of_label)
    if SMOOTH:
        lost += lost_evenly + (weight - own_weight) * log_sum

    factor = weight * scale / sum_exponential
    down = own_weight * scale
    for c in tl.static_range(CLASSES):
        gradient = tl.exp2((loaded[c].to(tl.float32) - greatest) * _LOG2_E) * factor
        gradient = tl.where(label == c, gradient - down, gradient)
        if SMOOTH:
            gradient -= tl.load(even + c) * scale
        gradient = tl.where(counts, gradient, 0.0)
        tl.store(at + c * step, gradient.to(scores.dtype.element_ty), mask=inside)

    _store_loss(partial + program, lost, scale, label, counts, CLASSES)
