"""Triton kernels for batch norm with its activation on channels-last tensors, forward and backward.

PyTorch's kernels for channels-last batch norm in half precision reach a fraction of the memory bandwidth, and with
running statistics (frozen batch norm) their backward pass changes the layout. These read and write each tensor once a
pass, apply the activation in the same pass, and add up in a fixed order, so that results repeat bit for bit.

Import this module only where `is_triton_available` is true.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

TILE = 2048
"""Elements that a program holds at a time."""

PROGRAMS = 512
"""Programs that share a reduction: enough to fill the largest GPUs, and few partial sums to combine."""

SIZES = ["rows", "rows_each", "parts"]
"""Arguments whose values do not matter to the compiled code: a kernel is not compiled again for each of them."""

ACTIVATIONS = {"none": 0, "relu": 1, "relu6": 2}
"""The activations that the kernels apply, by the number that the kernels know them by."""


@triton.jit  # type: ignore[untyped-decorator]
def _activated(z, activation: tl.constexpr):  # type: ignore[no-untyped-def]
    if activation >= 1:
        z = tl.maximum(z, 0.0)
    if activation == 2:
        z = tl.minimum(z, 6.0)
    return z


@triton.jit  # type: ignore[untyped-decorator]
def _through_activation(gradient, z, activation: tl.constexpr):  # type: ignore[no-untyped-def]
    """Return the gradient before the activation; z is its input or its output."""
    if activation >= 1:
        gradient = tl.where(z > 0.0, gradient, 0.0)
    if activation == 2:
        gradient = tl.where(z < 6.0, gradient, 0.0)
    return gradient


@triton.jit  # type: ignore[untyped-decorator]
def _inverse_deviation(spread, channel, within, epsilon, running: tl.constexpr):  # type: ignore[no-untyped-def]
    """Return the inverse deviation; `spread` is a variance if `running`, else the inverse deviation itself."""
    inverse = tl.load(spread + channel, mask=within, other=1.0)
    if running:
        inverse = 1.0 / tl.sqrt(inverse + epsilon)
    return inverse


@triton.jit  # type: ignore[untyped-decorator]
def _added_parts(  # type: ignore[no-untyped-def]
    partial, channel, within, channels, parts, block_parts: tl.constexpr, block_channels: tl.constexpr
):
    """Return the two sums of each channel over all parts."""
    first = tl.zeros([block_parts, block_channels], dtype=tl.float32)
    second = tl.zeros([block_parts, block_channels], dtype=tl.float32)
    part = tl.arange(0, block_parts)
    done = 0
    while done < parts:
        mask = (part < parts)[:, None] & within[None, :]
        at = partial + (part * 2)[:, None] * channels + channel[None, :]
        first += tl.load(at, mask=mask, other=0.0)
        second += tl.load(at + channels, mask=mask, other=0.0)
        part += block_parts
        done += block_parts
    return tl.sum(first, axis=0), tl.sum(second, axis=0)


@triton.jit(do_not_specialize=SIZES)  # type: ignore[untyped-decorator]
def _sums_of_input(  # type: ignore[no-untyped-def]
    x,
    partial,
    rows,
    channels,
    rows_each,
    block_rows: tl.constexpr,
    block_channels: tl.constexpr,
):
    """Add up x - x[0] and its square over some rows. Program (i, j): rows of part i, channels of block j."""
    part = tl.program_id(0)
    channel = tl.program_id(1) * block_channels + tl.arange(0, block_channels)
    within = channel < channels
    # Sums of differences from one row lose no precision where the mean is far from 0.
    shift = tl.load(x + channel, mask=within, other=0.0).to(tl.float32)
    total = tl.zeros([block_rows, block_channels], dtype=tl.float32)
    squares = tl.zeros([block_rows, block_channels], dtype=tl.float32)
    first = part * rows_each
    end = tl.minimum(first + rows_each, rows)
    row = first + tl.arange(0, block_rows)
    done = 0
    while done < rows_each:
        mask = (row < end)[:, None] & within[None, :]
        offset = row.to(tl.int64)[:, None] * channels + channel[None, :]
        value = tl.load(x + offset, mask=mask, other=0.0).to(tl.float32)
        value = tl.where(mask, value - shift[None, :], 0.0)
        total += value
        squares += value * value
        row += block_rows
        done += block_rows
    at = partial + (part * 2) * channels + channel
    tl.store(at, tl.sum(total, axis=0), mask=within)
    tl.store(at + channels, tl.sum(squares, axis=0), mask=within)


@triton.jit(do_not_specialize=SIZES)  # type: ignore[untyped-decorator]
def _statistics(  # type: ignore[no-untyped-def]
    x,
    partial,
    mean,
    inverse,
    running_mean,
    running_var,
    rows,
    channels,
    parts,
    momentum,
    epsilon,
    block_parts: tl.constexpr,
    block_channels: tl.constexpr,
):
    """Combine the partial sums to mean and inverse deviation, and update the running statistics."""
    channel = tl.program_id(0) * block_channels + tl.arange(0, block_channels)
    within = channel < channels
    total, squares = _added_parts(partial, channel, within, channels, parts, block_parts, block_channels)
    count = rows.to(tl.float32)
    distance = total / count
    variance = tl.maximum(squares / count - distance * distance, 0.0)
    centre = tl.load(x + channel, mask=within, other=0.0).to(tl.float32) + distance
    tl.store(mean + channel, centre, mask=within)
    tl.store(inverse + channel, 1.0 / tl.sqrt(variance + epsilon), mask=within)
    unbiased = variance * (count / tl.maximum(count - 1.0, 1.0))
    old_mean = tl.load(running_mean + channel, mask=within, other=0.0)
    old_var = tl.load(running_var + channel, mask=within, other=0.0)
    tl.store(running_mean + channel, old_mean + momentum * (centre - old_mean), mask=within)
    tl.store(running_var + channel, old_var + momentum * (unbiased - old_var), mask=within)


@triton.jit(do_not_specialize=SIZES)  # type: ignore[untyped-decorator]
def _normalize(  # type: ignore[no-untyped-def]
    x,
    y,
    mean,
    spread,
    weight,
    bias,
    rows,
    channels,
    epsilon,
    running: tl.constexpr,
    activation: tl.constexpr,
    block_rows: tl.constexpr,
    block_channels: tl.constexpr,
):
    """Write the normalized, scaled and activated x; `spread` is a variance if `running`, else an inverse deviation."""
    channel = tl.program_id(1) * block_channels + tl.arange(0, block_channels)
    within = channel < channels
    inverse = _inverse_deviation(spread, channel, within, epsilon, running)
    scale = tl.load(weight + channel, mask=within, other=0.0) * inverse
    shift = tl.load(bias + channel, mask=within, other=0.0) - tl.load(mean + channel, mask=within, other=0.0) * scale
    row = tl.program_id(0) * block_rows + tl.arange(0, block_rows)
    mask = (row < rows)[:, None] & within[None, :]
    offset = row.to(tl.int64)[:, None] * channels + channel[None, :]
    value = tl.load(x + offset, mask=mask, other=0.0).to(tl.float32)
    z = _activated(value * scale[None, :] + shift[None, :], activation)
    tl.store(y + offset, z.to(y.dtype.element_ty), mask=mask)


@triton.jit(do_not_specialize=SIZES)  # type: ignore[untyped-decorator]
def _sums_of_gradient(  # type: ignore[no-untyped-def]
    gradient,
    x,
    y,
    mean,
    spread,
    weight,
    bias,
    partial,
    rows,
    channels,
    rows_each,
    epsilon,
    running: tl.constexpr,
    activation: tl.constexpr,
    block_rows: tl.constexpr,
    block_channels: tl.constexpr,
):
    """Add up the gradient g before the activation, and g times the normalized x, over some rows."""
    part = tl.program_id(0)
    channel = tl.program_id(1) * block_channels + tl.arange(0, block_channels)
    within = channel < channels
    centre = tl.load(mean + channel, mask=within, other=0.0)
    inverse = _inverse_deviation(spread, channel, within, epsilon, running)
    scale = tl.load(weight + channel, mask=within, other=0.0) * inverse
    shift = tl.load(bias + channel, mask=within, other=0.0)
    total = tl.zeros([block_rows, block_channels], dtype=tl.float32)
    products = tl.zeros([block_rows, block_channels], dtype=tl.float32)
    first = part * rows_each
    end = tl.minimum(first + rows_each, rows)
    row = first + tl.arange(0, block_rows)
    done = 0
    while done < rows_each:
        mask = (row < end)[:, None] & within[None, :]
        offset = row.to(tl.int64)[:, None] * channels + channel[None, :]
        g = tl.load(gradient + offset, mask=mask, other=0.0).to(tl.float32)
        distance = tl.load(x + offset, mask=mask, other=0.0).to(tl.float32) - centre[None, :]
        if activation >= 1:
            if running:
                z = tl.load(y + offset, mask=mask, other=0.0).to(tl.float32)
            else:
                z = distance * scale[None, :] + shift[None, :]
            g = _through_activation(g, z, activation)
        total += g
        products += g * distance
        row += block_rows
        done += block_rows
    at = partial + (part * 2) * channels + channel
    tl.store(at, tl.sum(total, axis=0), mask=within)
    tl.store(at + channels, tl.sum(products, axis=0) * inverse, mask=within)


@triton.jit(do_not_specialize=SIZES)  # type: ignore[untyped-decorator]
def _combine(  # type: ignore[no-untyped-def]
    partial,
    of_bias,
    of_weight,
    channels,
    parts,
    block_parts: tl.constexpr,
    block_channels: tl.constexpr,
):
    """Add up the partial sums to the gradients of bias and weight."""
    channel = tl.program_id(0) * block_channels + tl.arange(0, block_channels)
    within = channel < channels
    total, products = _added_parts(partial, channel, within, channels, parts, block_parts, block_channels)
    tl.store(of_bias + channel, total, mask=within)
    tl.store(of_weight + channel, products, mask=within)


@triton.jit(do_not_specialize=SIZES)  # type: ignore[untyped-decorator]
def _gradient_of_input(  # type: ignore[no-untyped-def]
    gradient,
    x,
    y,
    of_x,
    mean,
    spread,
    weight,
    bias,
    of_bias,
    of_weight,
    rows,
    channels,
    epsilon,
    running: tl.constexpr,
    activation: tl.constexpr,
    block_rows: tl.constexpr,
    block_channels: tl.constexpr,
):
    """Write the gradient of x. With running statistics it is only the scaled one; else Ioffe and Szegedy, section 3."""
    channel = tl.program_id(1) * block_channels + tl.arange(0, block_channels)
    within = channel < channels
    inverse = _inverse_deviation(spread, channel, within, epsilon, running)
    scale = tl.load(weight + channel, mask=within, other=0.0) * inverse
    row = tl.program_id(0) * block_rows + tl.arange(0, block_rows)
    mask = (row < rows)[:, None] & within[None, :]
    offset = row.to(tl.int64)[:, None] * channels + channel[None, :]
    g = tl.load(gradient + offset, mask=mask, other=0.0).to(tl.float32)
    if running:
        if activation >= 1:
            g = _through_activation(g, tl.load(y + offset, mask=mask, other=0.0).to(tl.float32), activation)
    else:
        centre = tl.load(mean + channel, mask=within, other=0.0)
        shift = tl.load(bias + channel, mask=within, other=0.0)
        count = rows.to(tl.float32)
        mean_gradient = tl.load(of_bias + channel, mask=within, other=0.0) / count
        slope = tl.load(of_weight + channel, mask=within, other=0.0) / count * inverse
        distance = tl.load(x + offset, mask=mask, other=0.0).to(tl.float32) - centre[None, :]
        g = _through_activation(g, distance * scale[None, :] + shift[None, :], activation)
        g = g - mean_gradient[None, :] - distance * slope[None, :]
    tl.store(of_x + offset, (g * scale[None, :]).to(of_x.dtype.element_ty), mask=mask)


class _Geometry:
    """How a channels-last tensor [B, C, H, W] is divided among programs: as B*H*W rows of C channels."""

    def __init__(self, x: Tensor) -> None:
        self.channels = x.shape[1]
        self.rows = x.numel() // self.channels
        self.block_channels = min(64, triton.next_power_of_2(self.channels))
        self.block_rows = TILE // self.block_channels
        self.channel_blocks = triton.cdiv(self.channels, self.block_channels)
        self.row_blocks = triton.cdiv(self.rows, self.block_rows)
        wanted = max(1, min(self.row_blocks, PROGRAMS // self.channel_blocks))
        self.rows_each = triton.cdiv(self.row_blocks, wanted) * self.block_rows
        self.parts = triton.cdiv(self.rows, self.rows_each)

    @property
    def blocks(self) -> dict[str, int]:
        return {"block_rows": self.block_rows, "block_channels": self.block_channels}


_COMBINED = {"block_parts": 128, "block_channels": 8}
"""The block of the kernels that combine partial sums."""


class BatchNormActivation(torch.autograd.Function):
    """Batch norm and activation of a channels-last tensor x [B, C, H, W] in float32, bfloat16 or float16.

    Arguments: x; weight, bias, running_mean and running_var, float32 [C]; whether x is normalized by its own statistics
    (else by the running ones); momentum; epsilon; one of `ACTIVATIONS`. Statistics and arithmetic are float32.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        running_mean: Tensor,
        running_var: Tensor,
        training: bool,
        momentum: float,
        epsilon: float,
        activation: str,
    ) -> Tensor:
        g, kind = _Geometry(x), ACTIVATIONS[activation]
        y = torch.empty_like(x)
        with torch.cuda.device_of(x):
            if training:
                mean, spread = torch.empty_like(running_mean), torch.empty_like(running_var)
                partial = torch.empty(g.parts, 2, g.channels, device=x.device)
                _sums_of_input[(g.parts, g.channel_blocks)](x, partial, g.rows, g.channels, g.rows_each, **g.blocks)
                _statistics[(triton.cdiv(g.channels, _COMBINED["block_channels"]),)](
                    x,
                    partial,
                    mean,
                    spread,
                    running_mean,
                    running_var,
                    g.rows,
                    g.channels,
                    g.parts,
                    momentum,
                    epsilon,
                    **_COMBINED,
                )
            else:
                mean, spread = running_mean, running_var
            _normalize[(g.row_blocks, g.channel_blocks)](
                x,
                y,
                mean,
                spread,
                weight,
                bias,
                g.rows,
                g.channels,
                epsilon,
                running=not training,
                activation=kind,
                **g.blocks,
            )
        sums = training or ctx.needs_input_grad[1] or ctx.needs_input_grad[2]
        # The activation's gradient follows from x by the batch's own statistics, and else from y, so that x need not be
        # kept where nothing else reads it; y is kept by the next layer anyway.
        ctx.save_for_backward(x if sums else None, y if kind and not training else None, weight, bias, mean, spread)
        ctx.settings = training, epsilon, kind, sums
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, y, weight, bias, mean, spread = ctx.saved_tensors
        training, epsilon, kind, sums = ctx.settings
        gradient = gradients[0].contiguous(memory_format=torch.channels_last)
        g = _Geometry(gradient)
        of_bias = of_weight = of_x = None
        with torch.cuda.device_of(gradient):
            if sums:
                of_bias, of_weight = torch.empty_like(mean), torch.empty_like(mean)
                partial = torch.empty(g.parts, 2, g.channels, device=gradient.device)
                _sums_of_gradient[(g.parts, g.channel_blocks)](
                    gradient,
                    x,
                    y,
                    mean,
                    spread,
                    weight,
                    bias,
                    partial,
                    g.rows,
                    g.channels,
                    g.rows_each,
                    epsilon,
                    running=not training,
                    activation=kind,
                    **g.blocks,
                )
                _combine[(triton.cdiv(g.channels, _COMBINED["block_channels"]),)](
                    partial, of_bias, of_weight, g.channels, g.parts, **_COMBINED
                )
            if ctx.needs_input_grad[0]:
                of_x = torch.empty_like(gradient)
                _gradient_of_input[(g.row_blocks, g.channel_blocks)](
                    gradient,
                    x,
                    y,
                    of_x,
                    mean,
                    spread,
                    weight,
                    bias,
                    of_bias,
                    of_weight,
                    g.rows,
                    g.channels,
                    epsilon,
                    running=not training,
                    activation=kind,
                    **g.blocks,
                )
        return of_x, of_weight, of_bias, None, None, None, None, None, None
