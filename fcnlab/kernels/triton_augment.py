"""Triton kernels that augment a whole batch on CUDA: colours, resize, crop, flip, padding and normalisation.

Import this module only where `is_triton_available` is true; `fcnlab.data.batches.Plain` is the PyTorch fallback.
Labels, and images whose colours do not change, have the values that it gives on the CPU, bit for bit: images are
resized in the fixed-point arithmetic of `torch.ops.aten._upsample_bilinear2d_aa` for uint8 tensors, whose int16 weights
are computed in float64. Colours follow torchvision's float32 operations one by one, including the fused multiply-adds
of PyTorch's vectorized loops on x86, and differ in two rare cases, where a value next to a whole number is rounded down
to the grey level below: the mean for contrast is the exact one, where `torch.mean` adds up in float32; and PyTorch does
not fuse the operations of the last pixels of an image, which fill no vector. A difference of one grey level can grow to
two or three in the changes that follow.

The kernels are launched without automatic fusion of multiplications and additions, which would change these bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
import triton
import triton.language as tl
from numpy.typing import NDArray
from torch import Tensor

from fcnlab.constants import IGNORE_INDEX
from fcnlab.kernels.inputs import ColorJitter, Placement, RawBatch

BLOCK = 512
"""Values of the result that one program computes: four for each of its threads, which they store at once."""

LARGEST = 2**31
"""Bytes that one sample may have: offsets within it are 32-bit integers."""

# Columns of the table that the kernels read, int64 [B, COLUMNS]. Floats are stored as the bits of a float32.
_SOURCE, _LABEL, _IMAGE, _HEIGHT, _WIDTH, _TOP, _LEFT, _ROWS, _SHOWN, _FLIP = range(10)
_TAPS, _SCALES, _FACTORS = 10, 12, 14  # two, two (each y before x) and six columns
_STEPS = 20  # two columns, y before x: source pixels per resized pixel, the bits of a float64
COLUMNS = 22

_AXIS_BLOCK = 256
"""Positions of an axis whose weights one step of a program computes."""

_OPTIONS = {"enable_fp_fusion": False}
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
    """Return the centre, the first source position and the end of resized positions, as PyTorch computes them."""
    support = tl.maximum(scale, 1.0)
    centre = scale * (position.to(tl.float64) + 0.5)
    first = tl.maximum((centre - support + 0.5).to(tl.int32), 0)
    end = tl.minimum((centre + support + 0.5).to(tl.int32), source)
    return centre, first, end


@triton.jit
def _weight(position, end, centre, steepness):  # type: ignore[no-untyped-def]
    """Return the triangle filter at a source position, float64 and not yet normalised; 0 from `end` on."""
    height = 1.0 - tl.abs((position.to(tl.float64) - centre + 0.5) * steepness)
    return tl.where(position < end, tl.maximum(height, 0.0), 0.0)


@triton.jit
def _grey(red, green, blue):  # type: ignore[no-untyped-def]
    """Grey levels of whole-numbered colours as torchvision has them for uint8: rounded down."""
    return tl.floor(tl.fma(blue, 0.114, tl.fma(green, 0.587, red * 0.2989)))


@triton.jit
def _level(value):  # type: ignore[no-untyped-def]
    """The grey level that a value becomes as uint8: limited to 0..255 and rounded down."""
    return tl.floor(tl.minimum(tl.maximum(value, 0.0), 255.0))


@triton.jit
def _blend(value, factor, other, share):  # type: ignore[no-untyped-def]
    """Return the grey level of `value * factor + other * share`, with the roundings of torchvision's `_blend`."""
    return _level(tl.fma(other, share, value * factor))


@triton.jit  # type: ignore[untyped-decorator]
def _brightened(pixels, row, pixel, mask, brightness: tl.constexpr):  # type: ignore[no-untyped-def]
    """Return the red, green and blue levels of some pixels of a sample, after its change of brightness."""
    base = pixels + tl.load(row) + pixel * 3
    red = tl.load(base, mask=mask, other=0).to(tl.float32)
    green = tl.load(base + 1, mask=mask, other=0).to(tl.float32)
    blue = tl.load(base + 2, mask=mask, other=0).to(tl.float32)
    if brightness:
        factor = _float(row, 14)
        red, green, blue = _level(red * factor), _level(green * factor), _level(blue * factor)
    return red, green, blue


@triton.jit  # type: ignore[untyped-decorator]
def _sum_grey(  # type: ignore[no-untyped-def]
    sums, pixels, table, brightness: tl.constexpr, columns: tl.constexpr, block: tl.constexpr
):
    """Add up the grey levels of each image after its change of brightness. Program (i, b): block i of sample b."""
    row = table + tl.program_id(1) * columns
    count = _integer(row, 3) * _integer(row, 4)
    pixel = tl.program_id(0) * block + tl.arange(0, block)
    if tl.program_id(0) * block < count:
        mask = pixel < count
        red, green, blue = _brightened(pixels, row, pixel, mask, brightness)
        total = tl.reduce(_grey(red, green, blue).to(tl.int32), 0, _add)
        tl.atomic_add(sums + tl.program_id(1), total.to(tl.int64), sem="relaxed")


@triton.jit  # type: ignore[untyped-decorator]
def _recolour(  # type: ignore[no-untyped-def]
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
    """Write each image in its new colours as uint8. Program (i, b): block i of sample b."""
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
            grey = _grey(red, green, blue)
            red = _blend(red, factor, grey, share)
            green = _blend(green, factor, grey, share)
            blue = _blend(blue, factor, grey, share)
        if turn_hue:
            # To hue, saturation and value in 0..1 and back: torchvision's `_rgb_to_hsv` and `_hsv_to_rgb`, in the same
            # order and with divisions that are rounded exactly, as the one of Triton is not.
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
            # As there, these are limited to 0..1, which rounding can pass.
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
def _weigh(  # type: ignore[no-untyped-def]
    firsts,
    weights,
    precisions,
    table,
    kept,
    longest: tl.constexpr,
    columns: tl.constexpr,
    block: tl.constexpr,
):
    """Write the fixed-point weights by which each window is resized. Program (a, b): axis a (y, x) of sample b.

    A position of the window is the sum of source positions from its first one on, int32 [B, 2, longest], times their
    weights, int16 [B, 2, kept, longest], divided by 2 ** precision, int32 [B, 2]. As in PyTorch, the precision is the
    largest at which all weights of the axis fit int16, from the image's border to the window's end.
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
        centre, first, end = _reach(position, scale, source)
        total = tl.zeros([block], dtype=tl.float64)
        most = tl.zeros([block], dtype=tl.float64)
        i = 0
        while i < taps:
            weight = _weight(first + i, end, centre, steepness)
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
        centre, first, end = _reach(index + begin, scale, source)
        total = tl.zeros([block], dtype=tl.float64)
        i = 0
        while i < taps:
            total += _weight(first + i, end, centre, steepness)
            i += 1
        total = tl.where(known, total, 1.0)
        tl.store(firsts + number * longest + index, first, mask=known)
        i = 0
        while i < taps:
            weight = _weight(first + i, end, centre, steepness) / total * whole + 0.5
            tl.store(weights + (number * kept + i) * longest + index, weight.to(tl.int32).to(tl.int16), mask=known)
            i += 1
        start += block


@triton.jit(do_not_specialize=("kept",))  # type: ignore[untyped-decorator]
def _place(  # type: ignore[no-untyped-def]
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
    """Resize, crop, flip, pad and normalise. Program (i, b): block i of sample b, first of its image, then its label.

    The values of an image are numbered as in memory, [crop_height, crop_width, 3], so that stores are coalesced.
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
            # Triton 3.6 cannot interpret a `for` over a number that was loaded where NumPy is newer than it.
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
                # As on the CPU, each row is rounded to a grey level before the rows are added up.
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
        # The division is the exactly rounded one, for the bits of PyTorch's.
        tl.store(images + sample.to(tl.int64) * values + element, tl.div_rn(value - mean, std), mask=within)
    else:
        pixel = (tile - tiles) * block + tl.arange(0, block)
        within = pixel < crop_height * crop_width
        y = pixel // crop_width
        x = pixel % crop_width - padded
        inside = within & (y < rows) & (x >= 0) & (x < shown)
        x = tl.where(flip != 0, shown - 1 - x, x)
        # The nearest pixel, by the float32 arithmetic of NEAREST_EXACT.
        from_y = tl.minimum((((y + top).to(tl.float32) + 0.5) * scale_y).to(tl.int32), height - 1)
        from_x = tl.minimum((((x + left).to(tl.float32) + 0.5) * scale_x).to(tl.int32), width - 1)
        label = tl.load(classes + tl.load(row + 1) + (from_y * width + from_x), mask=inside, other=ignored)
        tl.store(labels + sample.to(tl.int64) * (crop_height * crop_width) + pixel, label, mask=within)


def pack_placements(
    table: NDArray[np.int64], placements: Sequence[Placement], jitter: ColorJitter
) -> NDArray[np.int64]:
    """Return the table that the kernels read, int64 [B, COLUMNS].

    Args:
        table: offset, height and width of each sample, int64 [B, 3].
        placements: one for each sample, without rotation and blur.
        jitter: color jitter of the augmentation.
    """
    packed = np.zeros((len(placements), COLUMNS), dtype=np.int64)
    extents = table[:, 1:]
    area = extents[:, 0] * extents[:, 1]
    drawn = np.array(
        [(*p.size, p.window.top, p.window.left, p.window.height, p.window.width, p.flip) for p in placements],
        dtype=np.int64,
    )
    sizes = drawn[:, :2]
    packed[:, _SOURCE] = packed[:, _IMAGE] = table[:, 0]
    packed[:, _LABEL] = table[:, 0] + 3 * area
    packed[:, _HEIGHT : _WIDTH + 1] = extents
    packed[:, _TOP : _FLIP + 1] = drawn[:, 2:]
    scales = extents.astype(np.float32) / sizes.astype(np.float32)
    packed[:, _SCALES : _SCALES + 2] = scales.view(np.int32)
    # From float64 factors as `resized_image` has them, so that the weights are those of PyTorch.
    packed[:, _STEPS:] = (1 / (sizes / extents)).view(np.int64)
    # An axis of equal extents is copied: the only weight there is the first.
    packed[:, _TAPS : _TAPS + 2] = np.where(extents == sizes, 1, np.ceil(2 * np.maximum(scales, 1)))
    if jitter.active:
        draws = np.array([placement.color_draws for placement in placements])
        brightness, contrast, saturation, hue = jitter.factors(draws).T
        factors = np.stack([brightness, contrast, 1 - contrast, saturation, 1 - saturation, hue], axis=1)
        packed[:, _FACTORS:_STEPS] = factors.astype(np.float32).view(np.int32)
        packed[:, _IMAGE] = np.cumsum(3 * area) - 3 * area
    return packed


def _on(device: torch.device) -> AbstractContextManager[Any]:
    """Make a CUDA device the current one, to which Triton launches its kernels."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


class BatchAugmenter:
    """Augments batches of one size on one device, without waiting for the device and without rotation and blur."""

    def __init__(
        self,
        crop: tuple[int, int],
        fill: tuple[int, int, int],
        mean: Sequence[float],
        std: Sequence[float],
        *,
        jitter: ColorJitter,
        resize: bool,
    ) -> None:
        """Set the parameters that all batches share.

        Args:
            crop: height and width of the results.
            fill: red, green and blue of padded pixels.
            mean: mean of each channel, in the range of uint8 pixels.
            std: standard deviation of each channel, in the range of uint8 pixels.
            jitter: color jitter.
            resize: whether samples may be resized.
        """
        self._crop, self._jitter, self._resize = crop, jitter, resize
        self._numbers = tuple(float(value) for value in (*mean, *std, *fill))

    @staticmethod
    def fits(raw: RawBatch) -> bool:
        """Return whether every sample is small enough for the kernels' 32-bit offsets."""
        return int((raw.table[:, 1] * raw.table[:, 2]).max()) * 4 < LARGEST

    def __call__(self, raw: RawBatch, placements: Sequence[Placement]) -> tuple[Tensor, Tensor]:
        """Return new images, float32 [B, 3, H, W] in channels-last layout, and labels, uint8 [B, H, W]."""
        device, batch = raw.pixels.device, len(placements)
        height, width = self._crop
        packed = pack_placements(raw.table, placements, self._jitter)
        # Pinned memory is used again only after the copy; and small: the host does not wait.
        host = torch.empty(packed.shape, dtype=torch.int64, pin_memory=device.type == "cuda")
        host.numpy()[:] = packed
        table = host.to(device, non_blocking=True)
        images = torch.empty(batch, height, width, 3, device=device)
        labels = torch.empty(batch, height, width, dtype=torch.uint8, device=device)
        with _on(device):
            pixels = self._recoloured(raw, table) if self._jitter.active else raw.pixels
            kept, axes = self._weights(table, packed)
            tiles = -(-3 * height * width // BLOCK) - (-height * width // BLOCK)
            _place[(tiles, batch)](
                images,
                labels,
                pixels,
                raw.pixels,
                *axes,
                table,
                kept,
                *self._numbers,
                crop_height=height,
                crop_width=width,
                resize=self._resize,
                longest=max(height, width),
                ignored=IGNORE_INDEX,
                columns=COLUMNS,
                block=BLOCK,
                **_OPTIONS,
            )
        return images.permute(0, 3, 1, 2), labels

    def _weights(self, table: Tensor, packed: NDArray[np.int64]) -> tuple[int, tuple[Tensor, Tensor, Tensor]]:
        """Compute the weights of all axes.

        Args:
            table: `packed` on the device.
            packed: as `pack_placements` returns it.

        Returns:
            The number of weights of each position, and the tensors that `_weigh` writes: first source positions,
            weights and precisions. They have one element each if nothing is resized.
        """
        resize, longest = self._resize, max(self._crop)
        taps = packed[:, _TAPS : _TAPS + 2]
        kept = int(taps.max())
        shapes = [(len(packed), 2, longest), (len(packed), 2, kept, longest), (len(packed), 2)]
        firsts, weights, precisions = (
            torch.empty(shape if resize else (1,), dtype=dtype, device=table.device)
            for shape, dtype in zip(shapes, (torch.int32, torch.int16, torch.int32), strict=True)
        )
        if resize:
            _weigh[(2, len(packed))](
                firsts,
                weights,
                precisions,
                table,
                kept,
                longest=longest,
                columns=COLUMNS,
                block=_AXIS_BLOCK,
                **_OPTIONS,
            )
        return kept, (firsts, weights, precisions)

    def _recoloured(self, raw: RawBatch, table: Tensor) -> Tensor:
        """Return the images [H, W, 3] in their new colours, one after the other, as a flat uint8 tensor."""
        jitter, device, areas = self._jitter, raw.pixels.device, raw.table[:, 1] * raw.table[:, 2]
        target = torch.empty(3 * int(areas.sum()), dtype=torch.uint8, device=device)
        sums = torch.zeros(len(areas), dtype=torch.int64, device=device)
        grid = (-(-int(areas.max()) // BLOCK), len(areas))
        brightness = jitter.brightness != 0
        if jitter.contrast:
            _sum_grey[grid](sums, raw.pixels, table, brightness=brightness, columns=COLUMNS, block=BLOCK, **_OPTIONS)
        _recolour[grid](
            target,
            raw.pixels,
            sums,
            table,
            brightness=brightness,
            contrast=jitter.contrast != 0,
            saturate=jitter.saturation != 0,
            turn_hue=jitter.hue != 0,
            columns=COLUMNS,
            block=BLOCK,
            **_OPTIONS,
        )
        return target
