"""Triton kernels of batch norm with its activation, forward and backward.

Import this module only where `is_triton_available` is true; the launches are in `fcnlab.kernels.triton_batch_norm`.
"""

from __future__ import annotations

import triton
import triton.language as tl

UNSPECIALIZED = ["rows", "rows_each", "parts"]
"""Arguments whose values do not affect the compiled code, so that kernels are not compiled again for each of them."""


@triton.jit  # type: ignore[untyped-decorator]
def _activate(z, activation: tl.constexpr):  # type: ignore[no-untyped-def]
    if activation >= 1:
        z = tl.maximum(z, 0.0)
    if activation == 2:
        z = tl.minimum(z, 6.0)
    return z


@triton.jit  # type: ignore[untyped-decorator]
def _activation_gradient(gradient, z, activation: tl.constexpr):  # type: ignore[no-untyped-def]
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
def _sum_parts(  # type: ignore[no-untyped-def]
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


@triton.jit(do_not_specialize=UNSPECIALIZED)  # type: ignore[untyped-decorator]
def sum_input(  # type: ignore[no-untyped-def]
    x,
    partial,
    rows,
    channels,
    rows_each,
    block_rows: tl.constexpr,
    block_channels: tl.constexpr,
):
    """Sum x - x[0] and its square over some rows. Program (i, j): rows of part i, channels of block j."""
    part = tl.program_id(0)
    channel = tl.program_id(1) * block_channels + tl.arange(0, block_channels)
    within = channel < channels
    # Sums of differences from one row do not lose precision if the mean is far from 0.
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


@triton.jit(do_not_specialize=UNSPECIALIZED)  # type: ignore[untyped-decorator]
def compute_statistics(  # type: ignore[no-untyped-def]
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
    """Combine the partial sums into mean and inverse deviation, and update the running statistics."""
    channel = tl.program_id(0) * block_channels + tl.arange(0, block_channels)
    within = channel < channels
    total, squares = _sum_parts(partial, channel, within, channels, parts, block_parts, block_channels)
    count = rows.to(tl.float32)
    distance = total / count
    variance = tl.maximum(squares / count - distance * distance, 0.0)
    center = tl.load(x + channel, mask=within, other=0.0).to(tl.float32) + distance
    tl.store(mean + channel, center, mask=within)
    tl.store(inverse + channel, 1.0 / tl.sqrt(variance + epsilon), mask=within)
    unbiased = variance * (count / tl.maximum(count - 1.0, 1.0))
    old_mean = tl.load(running_mean + channel, mask=within, other=0.0)
    old_var = tl.load(running_var + channel, mask=within, other=0.0)
    tl.store(running_mean + channel, old_mean + momentum * (center - old_mean), mask=within)
    tl.store(running_var + channel, old_var + momentum * (unbiased - old_var), mask=within)


@triton.jit(do_not_specialize=UNSPECIALIZED)  # type: ignore[untyped-decorator]
def normalize(  # type: ignore[no-untyped-def]
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
    z = _activate(value * scale[None, :] + shift[None, :], activation)
    tl.store(y + offset, z.to(y.dtype.element_ty), mask=mask)


@triton.jit(do_not_specialize=UNSPECIALIZED)  # type: ignore[untyped-decorator]
def sum_gradient(  # type: ignore[no-untyped-def]
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
    """Sum the gradient g before the activation, and g times the normalized x, over some rows."""
    part = tl.program_id(0)
    channel = tl.program_id(1) * block_channels + tl.arange(0, block_channels)
    within = channel < channels
    center = tl.load(mean + channel, mask=within, other=0.0)
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
        distance = tl.load(x + offset, mask=mask, other=0.0).to(tl.float32) - center[None, :]
        if activation >= 1:
            if running:
                z = tl.load(y + offset, mask=mask, other=0.0).to(tl.float32)
            else:
                z = distance * scale[None, :] + shift[None, :]
            g = _activation_gradient(g, z, activation)
        total += g
        products += g * distance
        row += block_rows
        done += block_rows
    at = partial + (part * 2) * channels + channel
    tl.store(at, tl.sum(total, axis=0), mask=within)
    tl.store(at + channels, tl.sum(products, axis=0) * inverse, mask=within)


@triton.jit(do_not_specialize=UNSPECIALIZED)  # type: ignore[untyped-decorator]
def combine_sums(  # type: ignore[no-untyped-def]
    partial,
    of_bias,
    of_weight,
    channels,
    parts,
    block_parts: tl.constexpr,
    block_channels: tl.constexpr,
):
    """Sum the partial sums to the gradients of bias and weight."""
    channel = tl.program_id(0) * block_channels + tl.arange(0, block_channels)
    within = channel < channels
    total, products = _sum_parts(partial, channel, within, channels, parts, block_parts, block_channels)
    tl.store(of_bias + channel, total, mask=within)
    tl.store(of_weight + channel, products, mask=within)


@triton.jit(do_not_specialize=UNSPECIALIZED)  # type: ignore[untyped-decorator]
def compute_input_gradient(  # type: ignore[no-untyped-def]
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
    """Write the gradient of x: scaled if `running`, else by the formulas of Ioffe and Szegedy, ICML 2015, section 3."""
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
            g = _activation_gradient(g, tl.load(y + offset, mask=mask, other=0.0).to(tl.float32), activation)
    else:
        center = tl.load(mean + channel, mask=within, other=0.0)
        shift = tl.load(bias + channel, mask=within, other=0.0)
        count = rows.to(tl.float32)
        mean_gradient = tl.load(of_bias + channel, mask=within, other=0.0) / count
        slope = tl.load(of_weight + channel, mask=within, other=0.0) / count * inverse
        distance = tl.load(x + offset, mask=mask, other=0.0).to(tl.float32) - center[None, :]
        g = _activation_gradient(g, distance * scale[None, :] + shift[None, :], activation)
        g = g - mean_gradient[None, :] - distance * slope[None, :]
    tl.store(of_x + offset, (g * scale[None, :]).to(of_x.dtype.element_ty), mask=mask)
