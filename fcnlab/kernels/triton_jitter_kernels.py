"""Triton kernels that change the colors of a batch on CUDA, before it is resized.

Import this module only where `is_triton_available` is true; the launches are in `fcnlab.kernels.triton_augment`.

The kernels follow torchvision's float32 operations one by one, including the fused multiply-adds of PyTorch's
vectorized loops on x86, and differ in two rare cases, where a value next to an integer is rounded down: the mean for
contrast is exact here, while `torch.mean` accumulates in float32; and PyTorch does not fuse the operations of the last
pixels of an image, which do not fill a vector. A difference of 1 can grow to 2 or 3 in the following changes.
"""

from __future__ import annotations

import triton
import triton.language as tl

from fcnlab.kernels import triton_sample_table as columns
from fcnlab.kernels.triton_sample_table import load_float, load_integer


@triton.jit
def _add(a, b):  # type: ignore[no-untyped-def]
    return a + b


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


@triton.jit
def _turn_hue(red, green, blue, turn):  # type: ignore[no-untyped-def]
    """Return colors whose hue is turned by a part of the circle.

    They are converted to hue, saturation and value in 0..1 and back: torchvision's `_rgb_to_hsv` and `_hsv_to_rgb`, in
    the same order and with exactly rounded divisions, which Triton's operator is not.
    """
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
    hue = hue - tl.floor(hue) + turn  # above -1: a turn of hue is at most a half
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
    return _level(red * 255.999), _level(green * 255.999), _level(blue * 255.999)


@triton.jit  # type: ignore[untyped-decorator]
def _brightened(pixels, row, pixel, mask, brightness: tl.constexpr):  # type: ignore[no-untyped-def]
    """Return the red, green and blue values of some pixels of a sample, after its change of brightness."""
    base = pixels + tl.load(row + columns.SOURCE) + pixel * 3
    red = tl.load(base, mask=mask, other=0).to(tl.float32)
    green = tl.load(base + 1, mask=mask, other=0).to(tl.float32)
    blue = tl.load(base + 2, mask=mask, other=0).to(tl.float32)
    if brightness:
        factor = load_float(row, columns.BRIGHTNESS)
        red, green, blue = _level(red * factor), _level(green * factor), _level(blue * factor)
    return red, green, blue


@triton.jit  # type: ignore[untyped-decorator]
def sum_gray(  # type: ignore[no-untyped-def]
    sums, pixels, table, brightness: tl.constexpr, block: tl.constexpr
):
    """Sum the gray values of each image after its change of brightness. Program (i, b): block i of sample b."""
    row = table + tl.program_id(1) * columns.COLUMNS
    count = load_integer(row, columns.HEIGHT) * load_integer(row, columns.WIDTH)
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
    block: tl.constexpr,
):
    """Write each image with its new colors as uint8. Program (i, b): block i of sample b."""
    row = table + tl.program_id(1) * columns.COLUMNS
    count = load_integer(row, columns.HEIGHT) * load_integer(row, columns.WIDTH)
    pixel = tl.program_id(0) * block + tl.arange(0, block)
    if tl.program_id(0) * block < count:
        mask = pixel < count
        red, green, blue = _brightened(pixels, row, pixel, mask, brightness)
        if contrast:
            factor, share = load_float(row, columns.CONTRAST), load_float(row, columns.CONTRAST_REST)
            mean = tl.div_rn(tl.load(sums + tl.program_id(1)).to(tl.float32), count.to(tl.float32))
            red = _blend(red, factor, mean, share)
            green = _blend(green, factor, mean, share)
            blue = _blend(blue, factor, mean, share)
        if saturate:
            factor, share = load_float(row, columns.SATURATION), load_float(row, columns.SATURATION_REST)
            gray = _gray(red, green, blue)
            red = _blend(red, factor, gray, share)
            green = _blend(green, factor, gray, share)
            blue = _blend(blue, factor, gray, share)
        if turn_hue:
            red, green, blue = _turn_hue(red, green, blue, load_float(row, columns.HUE))
        to = target + tl.load(row + columns.IMAGE) + pixel * 3
        tl.store(to, red.to(tl.uint8), mask=mask)
        tl.store(to + 1, green.to(tl.uint8), mask=mask)
        tl.store(to + 2, blue.to(tl.uint8), mask=mask)
