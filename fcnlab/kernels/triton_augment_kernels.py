"""Triton kernels that augment a batch on CUDA: resize, crop, flip, padding and normalization.

Import this module only where `is_triton_available` is true; the launches are in `fcnlab.kernels.triton_augment`.

Labels, and images without color jitter, are equal to those on the CPU bit for bit: images are resized in the
fixed-point arithmetic of `torch.ops.aten._upsample_bilinear2d_aa` for uint8 tensors, whose int16 weights are computed
in float64. Color jitter is in `fcnlab.kernels.triton_jitter_kernels`.

Kernels are launched without automatic fusion of multiplications and additions (`LAUNCH_OPTIONS`), which would change
these bits.
"""

from __future__ import annotations

import triton
import triton.language as tl

from fcnlab.kernels import triton_sample_table as columns
from fcnlab.kernels.triton_sample_table import load_float, load_integer

LAUNCH_OPTIONS = {"enable_fp_fusion": False}
"""Options of all launches: Triton would fuse multiplications and additions that PyTorch computes one by one."""


@triton.jit
def _reach(position, scale, source):  # type: ignore[no-untyped-def]
    """Return the center, the first source position and the end of resized positions, as PyTorch computes them."""
    support = tl.maximum(scale, 1.0)
    center = scale * (position.to(tl.float64) + 0.5)
    first = tl.maximum((center - support + 0.5).to(tl.int32), 0)
    end = tl.minimum((center + support + 0.5).to(tl.int32), source)
    return center, first, end


@triton.jit
def _weight(position, end, center, steepness):  # type: ignore[no-untyped-def]
    """Return the triangle filter at a source position, float64 and not yet normalized; 0 from `end` on."""
    height = 1.0 - tl.abs((position.to(tl.float64) - center + 0.5) * steepness)
    return tl.where(position < end, tl.maximum(height, 0.0), 0.0)


@triton.jit(do_not_specialize=("kept",))  # type: ignore[untyped-decorator]
def compute_weights(  # type: ignore[no-untyped-def]
    firsts,
    weights,
    precisions,
    table,
    kept,
    longest: tl.constexpr,
    block: tl.constexpr,
):
    """Write the fixed-point weights for resizing each window. Program (a, b): axis a (y, x) of sample b.

    A position of the window is the weighted sum of source positions from its first one on, int32 [B, 2, longest], with
    weights int16 [B, 2, kept, longest], divided by 2 ** precision, int32 [B, 2]. As in PyTorch, the precision is the
    largest at which all weights of the axis, from the border of the image to the end of the window, fit int16.
    """
    axis = tl.program_id(0)
    number = tl.program_id(1) * 2 + axis
    row = table + tl.program_id(1) * columns.COLUMNS + axis  # the columns of y become those of the axis
    source = load_integer(row, columns.HEIGHT)
    begin = load_integer(row, columns.TOP)
    count = load_integer(row, columns.ROWS)
    taps = load_integer(row, columns.TAPS_Y)
    scale = tl.load(row + columns.STEP_Y).to(tl.float64, bitcast=True)
    steepness = tl.where(scale >= 1.0, 1.0 / scale, 1.0)
    largest = tl.zeros([block], dtype=tl.float64)
    start = 0
    while start < begin + count:
        position = start + tl.arange(0, block)
        center, first, end = _reach(position, scale, source)
        total = tl.zeros([block], dtype=tl.float64)
        most = tl.zeros([block], dtype=tl.float64)
        i = 0
        while i < taps:
            weight = _weight(first + i, end, center, steepness)
            total += weight
            most = tl.maximum(most, weight)
            i += 1
        known = position < begin + count
        largest = tl.maximum(largest, tl.where(known, most / tl.where(known, total, 1.0), 0.0))
        start += block
    power = tl.max(largest, 0)
    precision = tl.program_id(0) * 0
    for _ in tl.static_range(22):  # the highest precision of PyTorch
        power = power * 2.0
        precision += (power + 0.5 < 32768.0).to(tl.int32)
    tl.store(precisions + number, precision)
    whole = (1 << precision).to(tl.float64)
    start = 0
    while start < count:
        index = start + tl.arange(0, block)
        known = index < count
        center, first, end = _reach(index + begin, scale, source)
        total = tl.zeros([block], dtype=tl.float64)
        i = 0
        while i < taps:
            total += _weight(first + i, end, center, steepness)
            i += 1
        total = tl.where(known, total, 1.0)
        tl.store(firsts + number * longest + index, first, mask=known)
        i = 0
        while i < taps:
            weight = _weight(first + i, end, center, steepness) / total * whole + 0.5
            tl.store(weights + (number * kept + i) * longest + index, weight.to(tl.int32).to(tl.int16), mask=known)
            i += 1
        start += block


@triton.jit(do_not_specialize=("kept",))  # type: ignore[untyped-decorator]
def place(  # type: ignore[no-untyped-def]
    images,
    labels,
    pixels,
    classes,
    firsts,
    weights,
    precisions,
    table,
    kept,
    mean_red,
    mean_green,
    mean_blue,
    std_red,
    std_green,
    std_blue,
    fill_red,
    fill_green,
    fill_blue,
    crop_height: tl.constexpr,
    crop_width: tl.constexpr,
    resize: tl.constexpr,
    longest: tl.constexpr,
    ignored: tl.constexpr,
    block: tl.constexpr,
):
    """Resize, crop, flip, pad and normalize. Program (i, b): block i of sample b, first of its image, then its label.

    Values of an image are numbered in memory order, [crop_height, crop_width, 3], so that stores are coalesced.
    """
    values: tl.constexpr = crop_height * crop_width * 3
    tiles: tl.constexpr = (values + block - 1) // block
    tile = tl.program_id(0)
    sample = tl.program_id(1)
    row = table + sample * columns.COLUMNS
    height = load_integer(row, columns.HEIGHT)
    width = load_integer(row, columns.WIDTH)
    top = load_integer(row, columns.TOP)
    left = load_integer(row, columns.LEFT)
    rows = load_integer(row, columns.ROWS)
    shown = load_integer(row, columns.SHOWN)
    flip = load_integer(row, columns.FLIP)
    scale_y = load_float(row, columns.SCALE_Y)
    scale_x = load_float(row, columns.SCALE_X)
    padded = tl.where(flip != 0, crop_width - shown, 0)  # columns of padding at the left
    if tile < tiles:
        element = tile * block + tl.arange(0, block)
        within = element < values
        y = element // (crop_width * 3)
        x = (element // 3) % crop_width
        channel = element % 3
        x = x - padded
        inside = within & (y < rows) & (x >= 0) & (x < shown)
        x = tl.where(flip != 0, shown - 1 - x, x)
        base = pixels + tl.load(row + columns.IMAGE)
        if resize:
            taps_y = load_integer(row, columns.TAPS_Y)
            taps_x = load_integer(row, columns.TAPS_X)
            precision_y = tl.load(precisions + sample * 2)
            precision_x = tl.load(precisions + sample * 2 + 1)
            first_y = tl.load(firsts + sample * 2 * longest + y, mask=inside, other=0)
            first_x = tl.load(firsts + (sample * 2 + 1) * longest + x, mask=inside, other=0)
            weights_y = weights + sample * 2 * kept * longest + y
            weights_x = weights + (sample * 2 + 1) * kept * longest + x
            value = tl.zeros([block], dtype=tl.int32) + ((1 << precision_y) >> 1)
            # With recent versions of NumPy, Triton 3.6 cannot interpret a `for` loop over a loaded number.
            i = 0
            while i < taps_y:
                line = base + (tl.minimum(first_y + i, height - 1) * width * 3 + channel)
                across = tl.zeros([block], dtype=tl.int32) + ((1 << precision_x) >> 1)
                j = 0
                while j < taps_x:
                    weight = tl.load(weights_x + j * longest, mask=inside, other=0).to(tl.int32)
                    level = tl.load(line + tl.minimum(first_x + j, width - 1) * 3, mask=inside, other=0).to(tl.int32)
                    across += weight * level
                    j += 1
                # As on the CPU, each row is rounded to an integer before the rows are summed.
                across = tl.minimum(across >> precision_x, 255)
                value += tl.load(weights_y + i * longest, mask=inside, other=0).to(tl.int32) * across
                i += 1
            value = tl.minimum(value >> precision_y, 255).to(tl.float32)
        else:
            offset = ((y + top) * width + x + left) * 3 + channel
            value = tl.load(base + offset, mask=inside, other=0).to(tl.float32)
        fill = tl.where(channel == 0, fill_red, tl.where(channel == 1, fill_green, fill_blue))
        mean = tl.where(channel == 0, mean_red, tl.where(channel == 1, mean_green, mean_blue))
        std = tl.where(channel == 0, std_red, tl.where(channel == 1, std_green, std_blue))
        value = tl.where(inside, value, fill)
        # An exactly rounded division, as in PyTorch.
        tl.store(images + sample.to(tl.int64) * values + element, tl.div_rn(value - mean, std), mask=within)
    else:
        pixel = (tile - tiles) * block + tl.arange(0, block)
        within = pixel < crop_height * crop_width
        y = pixel // crop_width
        x = pixel % crop_width - padded
        inside = within & (y < rows) & (x >= 0) & (x < shown)
        x = tl.where(flip != 0, shown - 1 - x, x)
        # The nearest pixel, in the float32 arithmetic of NEAREST_EXACT.
        from_y = tl.minimum((((y + top).to(tl.float32) + 0.5) * scale_y).to(tl.int32), height - 1)
        from_x = tl.minimum((((x + left).to(tl.float32) + 0.5) * scale_x).to(tl.int32), width - 1)
        label = tl.load(classes + tl.load(row + columns.LABEL) + (from_y * width + from_x), mask=inside, other=ignored)
        tl.store(labels + sample.to(tl.int64) * (crop_height * crop_width) + pixel, label, mask=within)
