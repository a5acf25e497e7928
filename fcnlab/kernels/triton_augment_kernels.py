"""Triton kernels that augment a batch on CUDA: color jitter, resize, crop, flip, padding and normalization.

Import this module only where `is_triton_available` is true; the launches are in `fcnlab.kernels.triton_augment`.

Labels, and images without color jitter, are equal to those on the CPU bit for bit: images are resized in the
fixed-point arithmetic of `torch.ops.aten._upsample_bilinear2d_aa` for uint8 tensors, whose int16 weights are computed
in float64. Color jitter follows torchvision's float32 operations one by one, including the fused multiply-adds of
PyTorch's vectorized loops on x86, and differs in two rare cases, where a value next to an integer is rounded down: the
mean for contrast is exact here, while `torch.mean` accumulates in float32; and PyTorch does not fuse the operations of
the last pixels of an image, which do not fill a vector. A difference of 1 can grow to 2 or 3 in the following changes.

Kernels are launched without automatic fusion of multiplications and additions (`LAUNCH_OPTIONS`), which would change
these bits.
"""

from __future__ import annotations

import triton
import triton.language as tl

LAUNCH_OPTIONS = {"enable_fp_fusion": False}
"""Options of all launches: Triton would fuse multiplications and additions that PyTorch computes one by one."""


@triton.jit  # type: ignore[untyped-decorator]
def _float(row, column: tl.constexpr):  # type: ignore[no-untyped-def]
    return tl.load(row + column).to(tl.int32).to(tl.float32, bitcast=True)


@triton.jit  # type: ignore[untyped-decorator]
def _integer(row, column: tl.constexpr):  # type: ignore[no-untyped-def]
    return tl.load(row + column).to(tl.int32)


@triton.jit
def _add(a, b):  # type: ignore[no-untyped-def]
    return a + b


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


@triton.jit
def _gray(red, green, blue):  # type: ignore[no-untyped-def]
    """Return the gray value of integer-valued colors, rounded down as torchvision does for uint8."""
    return tl.floor(tl.fma(blue, 0.114, tl.fma(green, 0.587, red * 0.2989)))


@triton.jit
def _level(value):  # type: ignore[no-untyped-def]
    """Return a value as uint8 would hold it: limited to 0..255 and rounded down."""
    return tl.floor(tl.minimum(tl.maximum(value, 0.0), 255.0))


@triton.jit
def _blend(value, factor, other, share):  # type: ignore[no-untyped-def]
    """Return `value * factor + other * share` as uint8, with the roundings of torchvision's `_blend`."""
    return _level(tl.fma(other, share, value * factor))


@triton.jit  # type: ignore[untyped-decorator]
def _brightened(pixels, row, pixel, mask, brightness: tl.constexpr):  # type: ignore[no-untyped-def]
    """Return the red, green and blue values of some pixels of a sample, after its change of brightness."""
    base = pixels + tl.load(row) + pixel * 3
    red = tl.load(base, mask=mask, other=0).to(tl.float32)
    green = tl.load(base + 1, mask=mask, other=0).to(tl.float32)
    blue = tl.load(base + 2, mask=mask, other=0).to(tl.float32)
    if brightness:
        factor = _float(row, 14)
        red, green, blue = _level(red * factor), _level(green * factor), _level(blue * factor)
    return red, green, blue


@triton.jit  # type: ignore[untyped-decorator]
def sum_gray(  # type: ignore[no-untyped-def]
    sums, pixels, table, brightness: tl.constexpr, columns: tl.constexpr, block: tl.constexpr
):
    """Sum the gray values of each image after its change of brightness. Program (i, b): block i of sample b."""
    row = table + tl.program_id(1) * columns
    count = _integer(row, 3) * _integer(row, 4)
    pixel = tl.program_id(0) * block + tl.arange(0, block)
    if tl.program_id(0) * block < count:
        mask = pixel < count
        red, green, blue = _brightened(pixels, row, pixel, mask, brightness)
        total = tl.reduce(_gray(red, green, blue).to(tl.int32), 0, _add)
        tl.atomic_add(sums + tl.program_id(1), total.to(tl.int64), sem="relaxed")


@triton.jit  # type: ignore[untyped-decorator]
def jitter_colors(  # type: ignore[no-untyped-def]
    target,
    pixels,
    sums,
    table,
    brightness: tl.constexpr,
    contrast: tl.constexpr,
    saturate: tl.constexpr,
    turn_hue: tl.constexpr,
    columns: tl.constexpr,
    block: tl.constexpr,
):
    """Write each image with its new colors as uint8. Program (i, b): block i of sample b."""
    row = table + tl.program_id(1) * columns
    count = _integer(row, 3) * _integer(row, 4)
    pixel = tl.program_id(0) * block + tl.arange(0, block)
    if tl.program_id(0) * block < count:
        mask = pixel < count
        red, green, blue = _brightened(pixels, row, pixel, mask, brightness)
        if contrast:
            factor, share = _float(row, 15), _float(row, 16)
            mean = tl.div_rn(tl.load(sums + tl.program_id(1)).to(tl.float32), count.to(tl.float32))
            red = _blend(red, factor, mean, share)
            green = _blend(green, factor, mean, share)
            blue = _blend(blue, factor, mean, share)
        if saturate:
            factor, share = _float(row, 17), _float(row, 18)
            gray = _gray(red, green, blue)
            red = _blend(red, factor, gray, share)
            green = _blend(green, factor, gray, share)
            blue = _blend(blue, factor, gray, share)
        if turn_hue:
            # To hue, saturation and value in 0..1 and back: torchvision's `_rgb_to_hsv` and `_hsv_to_rgb`, in the same
            # order and with exactly rounded divisions, which Triton's operator is not.
            red, green, blue = red * (1.0 / 255.0), green * (1.0 / 255.0), blue * (1.0 / 255.0)
            value = tl.maximum(tl.maximum(red, green), blue)
            low = tl.minimum(tl.minimum(red, green), blue)
            spread = value - low
            divisor = tl.where(spread == 0.0, 1.0, spread)
            from_red = tl.div_rn(value - red, divisor)
            from_green = tl.div_rn(value - green, divisor)
            from_blue = tl.div_rn(value - blue, divisor)
            saturation = tl.div_rn(spread, tl.where(spread == 0.0, 1.0, value))
            hue = tl.where(
                value == red,
                from_blue - from_green,
                tl.where(value == green, from_red + 2.0 - from_blue, from_green + 4.0 - from_red),
            )
            hue = hue * (1.0 / 6.0) + 1.0  # positive
            hue = hue - tl.floor(hue) + _float(row, 19)  # above -1: a turn of hue is at most a half
            hue = tl.where(hue < 0.0, hue + 1.0, hue - tl.floor(hue))
            sector = tl.floor(hue * 6.0)
            part = hue * 6.0 - sector
            index = sector.to(tl.int32) % 6
            product = saturation * part
            rest = 1.0 - saturation
            # As in torchvision, limited to 0..1, which rounding can exceed.
            p = tl.minimum(tl.maximum(rest * value, 0.0), 1.0)
            q = tl.minimum(tl.maximum((1.0 - product) * value, 0.0), 1.0)
            t = tl.minimum(tl.maximum((product + rest) * value, 0.0), 1.0)
            red = tl.where((index == 0) | (index == 5), value, tl.where(index == 1, q, tl.where(index == 4, t, p)))
            green = tl.where((index == 1) | (index == 2), value, tl.where(index == 0, t, tl.where(index == 3, q, p)))
            blue = tl.where((index == 3) | (index == 4), value, tl.where(index == 2, t, tl.where(index == 5, q, p)))
            red, green, blue = _level(red * 255.999), _level(green * 255.999), _level(blue * 255.999)
        to = target + tl.load(row + 2) + pixel * 3
        tl.store(to, red.to(tl.uint8), mask=mask)
        tl.store(to + 1, green.to(tl.uint8), mask=mask)
        tl.store(to + 2, blue.to(tl.uint8), mask=mask)


@triton.jit(do_not_specialize=("kept",))  # type: ignore[untyped-decorator]
def compute_weights(  # type: ignore[no-untyped-def]
    firsts,
    weights,
    precisions,
    table,
    kept,
    longest: tl.constexpr,
    columns: tl.constexpr,
    block: tl.constexpr,
):
    """Write the fixed-point weights for resizing each window. Program (a, b): axis a (y, x) of sample b.

    A position of the window is the weighted sum of source positions from its first one on, int32 [B, 2, longest], with
    weights int16 [B, 2, kept, longest], divided by 2 ** precision, int32 [B, 2]. As in PyTorch, the precision is the
    largest at which all weights of the axis, from the border of the image to the end of the window, fit int16.
    """
    axis = tl.program_id(0)
    number = tl.program_id(1) * 2 + axis
    row = table + tl.program_id(1) * columns + axis
    source = _integer(row, 3)
    begin = _integer(row, 5)
    count = _integer(row, 7)
    taps = _integer(row, 10)
    scale = tl.load(row + 20).to(tl.float64, bitcast=True)
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
    columns: tl.constexpr,
    block: tl.constexpr,
):
    """Resize, crop, flip, pad and normalize. Program (i, b): block i of sample b, first of its image, then its label.

    Values of an image are numbered in memory order, [crop_height, crop_width, 3], so that stores are coalesced.
    """
    values: tl.constexpr = crop_height * crop_width * 3
    tiles: tl.constexpr = (values + block - 1) // block
    tile = tl.program_id(0)
    sample = tl.program_id(1)
    row = table + sample * columns
    height = _integer(row, 3)
    width = _integer(row, 4)
    top = _integer(row, 5)
    left = _integer(row, 6)
    rows = _integer(row, 7)
    shown = _integer(row, 8)
    flip = _integer(row, 9)
    scale_y = _float(row, 12)
    scale_x = _float(row, 13)
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
        base = pixels + tl.load(row + 2)
        if resize:
            taps_y = _integer(row, 10)
            taps_x = _integer(row, 11)
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
        label = tl.load(classes + tl.load(row + 1) + (from_y * width + from_x), mask=inside, other=ignored)
        tl.store(labels + sample.to(tl.int64) * (crop_height * crop_width) + pixel, label, mask=within)
