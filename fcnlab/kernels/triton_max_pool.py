"""Triton kernels of maximum pooling for channels-last images, forward and backward."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

Pair = tuple[int, int]

_DTYPES = (torch.float32, torch.float16, torch.bfloat16)
_LARGEST = 7
"""Largest kernel and stride: loops over them are unrolled, and a window position is stored in 8 bits."""
_COLUMNS = 32
_ELEMENTS = 2048
"""Elements of one program of 128 threads, each of which loads 16 bytes at a time with all loads in flight."""


def supports_pooling(x: Tensor, kernel: Pair, stride: Pair, padding: Pair) -> bool:
    """Return True if `max_pool2d` supports a tensor; otherwise use `torch.nn.functional.max_pool2d`.

    Args:
        x: any tensor.
        kernel: height and width of a window.
        stride: vertical and horizontal distance of windows.
        padding: rows and columns added on each side.
    """
    return (
        x.dtype in _DTYPES
        and x.dim() == 4
        and 0 < x.numel() < 2**31  # element indices have 32 bits
        and x.is_contiguous(memory_format=torch.channels_last)
        and all(1 <= size <= _LARGEST for size in (*kernel, *stride))
        # PyTorch reports other values as errors.
        and all(0 <= 2 * p <= k <= n + 2 * p for n, k, p in zip(x.shape[2:], kernel, padding, strict=True))
    )


def max_pool2d(x: Tensor, kernel: Pair, stride: Pair, padding: Pair, ceil_mode: bool) -> Tensor:
    """Pool like `torch.nn.functional.max_pool2d`, with gradients that are reproducible bit for bit.

    Each element of the gradient is the sum of the gradients of the windows whose maximum it is, added in float32 in a
    fixed order and rounded once. The maximum of a window is its first one, row by row, or its last nan.

    Args:
        x: [B, C, H, W], channels-last, as `supports_pooling` requires.
        kernel: height and width of a window.
        stride: vertical and horizontal distance of windows.
        padding: rows and columns of minus infinity added on each side.
        ceil_mode: windows can extend beyond the padding at the bottom and on the right.

    Returns:
        Maxima [B, C, h, w], channels-last, of the dtype of `x`.
    """
    if torch.is_grad_enabled() and x.requires_grad:
        pooled: Tensor = _MaxPool.apply(x, kernel, stride, padding, ceil_mode)
        return pooled
    return _forward(x, kernel, stride, padding, ceil_mode, positions=False)[0]


class _MaxPool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, kernel: Pair, stride: Pair, padding: Pair, ceil_mode: bool) -> Tensor:
        pooled, positions = _forward(x, kernel, stride, padding, ceil_mode, positions=True)
        ctx.save_for_backward(positions)
        ctx.geometry = x.shape, kernel, stride, padding
        return pooled

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (positions,) = ctx.saved_tensors
        return _backward(gradient, positions, *ctx.geometry), None, None, None, None


def _forward(
    x: Tensor, kernel: Pair, stride: Pair, padding: Pair, ceil_mode: bool, *, positions: bool
) -> tuple[Tensor, Tensor]:
    """Return the maxima and, if `positions`, their uint8 positions in the windows, numbered row by row."""
    images, channels, height, width = x.shape
    rows = _windows(height, kernel[0], stride[0], padding[0], ceil_mode)
    columns = _windows(width, kernel[1], stride[1], padding[1], ceil_mode)
    size = (images, channels, rows, columns)
    pooled = torch.empty(size, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
    chosen = torch.empty_like(pooled, dtype=torch.uint8) if positions else pooled
    block, block_channels = _blocks(columns, channels, _ELEMENTS)
    grid = (images * rows, triton.cdiv(columns, block), triton.cdiv(channels, block_channels))
    _pool[grid](
        x,
        pooled,
        chosen,
        height,
        width,
        rows,
        columns,
        CHANNELS=channels,
        **_constants(kernel, stride, padding),
        POSITIONS=positions,
        BLOCK=block,
        BLOCK_CHANNELS=block_channels,
        num_warps=4,
    )
    return pooled, chosen


def _backward(
    gradient: Tensor, positions: Tensor, shape: torch.Size, kernel: Pair, stride: Pair, padding: Pair
) -> Tensor:
    """Return the gradient of the input, of a shape [B, C, H, W]."""
    images, channels, height, width = shape
    rows, columns = gradient.shape[2:]
    gradient = gradient.contiguous(memory_format=torch.channels_last)
    result = torch.empty(tuple(shape), dtype=gradient.dtype, device=gradient.device, memory_format=torch.channels_last)
    cell_rows = (height - 1 + padding[0]) // stride[0] + 1
    cell_columns = (width - 1 + padding[1]) // stride[1] + 1
    block, block_channels = _blocks(cell_columns, channels, _ELEMENTS // 2)
    grid = (images * cell_rows, triton.cdiv(cell_columns, block), triton.cdiv(channels, block_channels))
    _unpool[grid](
        gradient,
        positions,
        result,
        height,
        width,
        rows,
        columns,
        cell_rows,
        CHANNELS=channels,
        **_constants(kernel, stride, padding),
        BLOCK=block,
        BLOCK_CHANNELS=block_channels,
        num_warps=4,
    )
    return result


def _constants(kernel: Pair, stride: Pair, padding: Pair) -> dict[str, int]:
    """Return the geometry of windows by the parameter names of the kernels."""
    return {
        f"{name}_{axis}": value
        for name, pair in (("KERNEL", kernel), ("STRIDE", stride), ("PADDING", padding))
        for axis, value in zip("HW", pair, strict=True)
    }


def _windows(size: int, kernel: int, stride: int, padding: int, ceil_mode: bool) -> int:
    """Return the number of windows along an axis, as PyTorch defines it."""
    count = (size + 2 * padding - kernel + (stride - 1 if ceil_mode else 0)) // stride + 1
    # The last window must start inside the image or in the padding on its left.
    return count - 1 if ceil_mode and (count - 1) * stride >= size + padding else count


def _blocks(columns: int, channels: int, elements: int) -> Pair:
    """Return the number of columns and of channels of one program."""
    block_channels = min(triton.next_power_of_2(channels), 128)
    block = min(triton.next_power_of_2(columns), max(_COLUMNS, 512 // block_channels), elements // block_channels)
    return block, block_channels


# Sizes are not specialized: evaluation pools images of many sizes, each of which would compile another kernel.
_SIZES = ["height", "width", "rows", "columns"]


@triton.jit(do_not_specialize=_SIZES)  # type: ignore[untyped-decorator]
def _pool(  # type: ignore[no-untyped-def]
    image,
    pooled,
    positions,
    height,
    width,
    rows,
    columns,
    CHANNELS: tl.constexpr,  # noqa: N803
    KERNEL_H: tl.constexpr,  # noqa: N803
    KERNEL_W: tl.constexpr,  # noqa: N803
    STRIDE_H: tl.constexpr,  # noqa: N803
    STRIDE_W: tl.constexpr,  # noqa: N803
    PADDING_H: tl.constexpr,  # noqa: N803
    PADDING_W: tl.constexpr,  # noqa: N803
    POSITIONS: tl.constexpr,  # noqa: N803
    BLOCK: tl.constexpr,  # noqa: N803
    BLOCK_CHANNELS: tl.constexpr,  # noqa: N803
):
    """Pool a block of windows of one row, for a block of channels."""
    line = tl.program_id(0)
    n = line // rows
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    channel = tl.program_id(2) * BLOCK_CHANNELS + tl.arange(0, BLOCK_CHANNELS)
    # Rows are blocks as well: the interpreter of Triton 3.9 takes the comparison of a scalar for an integer in a mask.
    top = (line - n * rows) * STRIDE_H - PADDING_H + tl.zeros([BLOCK], tl.int32)
    left = column * STRIDE_W - PADDING_W
    best = tl.full([BLOCK, BLOCK_CHANNELS], float("-inf"), tl.float32)
    # The maximum of a window of minus infinity is at its first position inside the image.
    first = tl.maximum(-top, 0) * KERNEL_W + tl.maximum(-left, 0)
    position = first[:, None] + tl.zeros([BLOCK, BLOCK_CHANNELS], tl.int32)
    for i in tl.static_range(KERNEL_H):
        y = top + i
        for j in tl.static_range(KERNEL_W):
            x = left + j
            inside = ((column < columns) & (x >= 0) & (x < width) & (y >= 0) & (y < height))[:, None]
            if CHANNELS % BLOCK_CHANNELS != 0:
                inside = inside & (channel < CHANNELS)[None, :]
            at = image + ((n * height + y) * width + x)[:, None] * CHANNELS + channel[None, :]
            value = tl.load(at, mask=inside, other=float("-inf")).to(tl.float32)
            better = (value > best) | (value != value)
            best = tl.where(better, value, best)
            position = tl.where(better, i * KERNEL_W + j, position)
    present = (column < columns)[:, None]
    if CHANNELS % BLOCK_CHANNELS != 0:
        present = present & (channel < CHANNELS)[None, :]
    to = (line * columns + column)[:, None] * CHANNELS + channel[None, :]
    tl.store(pooled + to, best.to(pooled.dtype.element_ty), mask=present)
    if POSITIONS:
        tl.store(positions + to, position.to(tl.uint8), mask=present)


@triton.jit(do_not_specialize=[*_SIZES, "cell_rows"])  # type: ignore[untyped-decorator]
def _unpool(  # type: ignore[no-untyped-def]
    gradient,
    positions,
    result,
    height,
    width,
    rows,
    columns,
    cell_rows,
    CHANNELS: tl.constexpr,  # noqa: N803
    KERNEL_H: tl.constexpr,  # noqa: N803
    KERNEL_W: tl.constexpr,  # noqa: N803
    STRIDE_H: tl.constexpr,  # noqa: N803
    STRIDE_W: tl.constexpr,  # noqa: N803
    PADDING_H: tl.constexpr,  # noqa: N803
    PADDING_W: tl.constexpr,  # noqa: N803
    BLOCK: tl.constexpr,  # noqa: N803
    BLOCK_CHANNELS: tl.constexpr,  # noqa: N803
):
    """Gather the gradients of a block of cells, for a block of channels.

    A cell has the size of the stride and starts where a window starts. So the windows that contain one of its pixels,
    and the position of the pixel in each of them, are the same for all cells and known at compile time.
    """
    line = tl.program_id(0)
    n = line // cell_rows
    cell_row = line - n * cell_rows + tl.zeros([BLOCK], tl.int32)  # a block, as in _pool
    cell_column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    channel = tl.program_id(2) * BLOCK_CHANNELS + tl.arange(0, BLOCK_CHANNELS)
    for i in tl.static_range(STRIDE_H):
        for j in tl.static_range(STRIDE_W):
            total = tl.zeros([BLOCK, BLOCK_CHANNELS], tl.float32)
            for above in tl.static_range((KERNEL_H - i + STRIDE_H - 1) // STRIDE_H):
                for before in tl.static_range((KERNEL_W - j + STRIDE_W - 1) // STRIDE_W):
                    row = cell_row - above
                    column = cell_column - before
                    inside = ((row >= 0) & (row < rows) & (column >= 0) & (column < columns))[:, None]
                    if CHANNELS % BLOCK_CHANNELS != 0:
                        inside = inside & (channel < CHANNELS)[None, :]
                    at = ((n * rows + row) * columns + column)[:, None] * CHANNELS + channel[None, :]
                    # No window has position 255.
                    position = tl.load(positions + at, mask=inside, other=255)
                    part = tl.load(gradient + at, mask=inside, other=0.0).to(tl.float32)
                    here = (i + above * STRIDE_H) * KERNEL_W + j + before * STRIDE_W
                    total += tl.where(position == here, part, 0.0)
            y = cell_row * STRIDE_H + i - PADDING_H
            x = cell_column * STRIDE_W + j - PADDING_W
            present = ((y >= 0) & (y < height) & (x >= 0) & (x < width))[:, None]
            if CHANNELS % BLOCK_CHANNELS != 0:
                present = present & (channel < CHANNELS)[None, :]
            to = ((n * height + y) * width + x)[:, None] * CHANNELS + channel[None, :]
            tl.store(result + to, total.to(result.dtype.element_ty), mask=present)
