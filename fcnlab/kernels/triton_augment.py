"""Triton kernels that augment a whole batch on CUDA: colours, resize, crop, flip, padding and normalisation.

Import this module only where `triton_available` is true. The twin in PyTorch operators is `fcnlab.data.batches.Plain`.
Labels, and images that are not resized, have the same values as there. Resized images have the grey levels that
`torch.ops.aten._upsample_bilinear2d_aa` gives for uint8 tensors on the CPU, except where its rounding of the weights
moves a sum past a rounding boundary: there they differ by one grey level. These are about 1 % of the values, or up to
10 % at ratios such as 3:2, where many sums lie exactly between two levels. Colours differ from torchvision's by one
grey level in rare pixels, where float32 sums are rounded in another order; by more where several changes follow each
other.
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

from fcnlab.data.augment import Augmentation, Placement
from fcnlab.data.base import IGNORE
from fcnlab.data.decoded import RawBatch

BLOCK = 512
"""Values of the result that one program computes: four for each of its threads, which they store at once."""

LARGEST = 2**31
"""Bytes that one sample may have: offsets within it are 32-bit integers."""

# Columns of the table that the kernels read, int64 [B, COLUMNS]. Floats are stored as the bits of a float32.
_SOURCE, _LABEL, _IMAGE, _HEIGHT, _WIDTH, _TOP, _LEFT, _ROWS, _SHOWN, _FLIP = range(10)
_TAPS, _SCALES, _FACTORS = 10, 12, 14  # two, two (each y before x) and six columns
COLUMNS = 20


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
def _weight(position, end, centre, steepness):  # type: ignore[no-untyped-def]
    """The triangle filter at a source position, not yet normalised; 0 from `end` on."""
    height = 1.0 - tl.abs((position.to(tl.float32) - centre + 0.5) * steepness)
    return tl.where(position < end, tl.maximum(height, 0.0), 0.0)


@triton.jit
def _grey(red, green, blue):  # type: ignore[no-untyped-def]
    """Grey levels of whole-numbered colours as torchvision has them for uint8: rounded down."""
    return tl.floor(red * 0.2989 + green * 0.587 + blue * 0.114)


@triton.jit
def _level(value):  # type: ignore[no-untyped-def]
    """The grey level that a value becomes as uint8: limited to 0..255 and rounded down."""
    return tl.floor(tl.minimum(tl.maximum(value, 0.0), 255.0))


@triton.jit  # type: ignore[untyped-decorator]
def _sum_grey(  # type: ignore[no-untyped-def]
    sums, pixels, table, brightness: tl.constexpr, columns: tl.constexpr, block: tl.constexpr
):
    """Add up the grey levels of each image after its change of brightness. Program (i, b): block i of sample b."""
    row = table + tl.program_id(1) * columns
    count = _integer(row, 3) * _integer(row, 4)
    pixel = tl.program_id(0) * block + tl.arange(0, block)
    if tl.program_id(0) * block < count:
        base = pixels + tl.load(row) + pixel * 3
        mask = pixel < count
        red = tl.load(base, mask=mask, other=0).to(tl.float32)
        green = tl.load(base + 1, mask=mask, other=0).to(tl.float32)
        blue = tl.load(base + 2, mask=mask, other=0).to(tl.float32)
        if brightness:
            factor = _float(row, 14)
            red, green, blue = _level(red * factor), _level(green * factor), _level(blue * factor)
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
        base = pixels + tl.load(row) + pixel * 3
        mask = pixel < count
        red = tl.load(base, mask=mask, other=0).to(tl.float32)
        green = tl.load(base + 1, mask=mask, other=0).to(tl.float32)
        blue = tl.load(base + 2, mask=mask, other=0).to(tl.float32)
        if brightness:
            factor = _float(row, 14)
            red, green, blue = _level(red * factor), _level(green * factor), _level(blue * factor)
        if contrast:
            factor = _float(row, 15)
            mean = tl.load(sums + tl.program_id(1)).to(tl.float32) / count.to(tl.float32)
            added = _float(row, 16) * mean
            red, green, blue = (
                _level(red * factor + added),
                _level(green * factor + added),
                _level(blue * factor + added),
            )
        if saturate:
            factor = _float(row, 17)
            added = _float(row, 18) * _grey(red, green, blue)
            red, green, blue = (
                _level(red * factor + added),
                _level(green * factor + added),
                _level(blue * factor + added),
            )
        if turn_hue:
            # To hue, saturation and value in 0..1 and back, as torchvision's `_rgb_to_hsv` and `_hsv_to_rgb`.
            high = tl.maximum(tl.maximum(red, green), blue)
            low = tl.minimum(tl.minimum(red, green), blue)
            spread = high - low
            divisor = tl.where(spread == 0.0, 1.0, spread)
            from_red, from_green, from_blue = (high - red) / divisor, (high - green) / divisor, (high - blue) / divisor
            hue = tl.where(
                high == red,
                from_blue - from_green,
                tl.where(high == green, 2.0 + from_red - from_blue, 4.0 + from_green - from_red),
            )
            hue = hue * (1.0 / 6.0) + 1.0 + _float(row, 19)  # positive: a turn of hue is at most a half
            hue = hue - tl.floor(hue)
            saturation = spread / tl.where(high == 0.0, 1.0, high)
            value = high * (1.0 / 255.0)
            sector = tl.floor(hue * 6.0)
            part = hue * 6.0 - sector
            index = sector.to(tl.int32) % 6
            p = value * (1.0 - saturation)
            q = value * (1.0 - saturation * part)
            t = value * (1.0 - saturation * (1.0 - part))
            red = tl.where((index == 0) | (index == 5), value, tl.where(index == 1, q, tl.where(index == 4, t, p)))
            green = tl.where((index == 1) | (index == 2), value, tl.where(index == 0, t, tl.where(index == 3, q, p)))
            blue = tl.where((index == 3) | (index == 4), value, tl.where(index == 2, t, tl.where(index == 5, q, p)))
            red, green, blue = _level(red * 255.999), _level(green * 255.999), _level(blue * 255.999)
        to = target + tl.load(row + 2) + pixel * 3
        tl.store(to, red.to(tl.uint8), mask=mask)
        tl.store(to + 1, green.to(tl.uint8), mask=mask)
        tl.store(to + 2, blue.to(tl.uint8), mask=mask)


@triton.jit  # type: ignore[untyped-decorator]
def _place(  # type: ignore[no-untyped-def]
    images,
    labels,
    pixels,
    classes,
    table,
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
        y = y + top
        x = x + left
        base = pixels + tl.load(row + 2)
        if resize:
            taps_y = _integer(row, 10)
            taps_x = _integer(row, 11)
            support_y = tl.maximum(scale_y, 1.0)
            support_x = tl.maximum(scale_x, 1.0)
            steep_y = 1.0 / support_y
            steep_x = 1.0 / support_x
            centre_y = (y.to(tl.float32) + 0.5) * scale_y
            centre_x = (x.to(tl.float32) + 0.5) * scale_x
            low_y = tl.maximum((centre_y - support_y + 0.5).to(tl.int32), 0)
            low_x = tl.maximum((centre_x - support_x + 0.5).to(tl.int32), 0)
            end_y = tl.minimum((centre_y + support_y + 0.5).to(tl.int32), height)
            end_x = tl.minimum((centre_x + support_x + 0.5).to(tl.int32), width)
            # Triton 3.6 cannot interpret a `for` over a number that was loaded where NumPy is newer than it.
            total_y = tl.zeros([block], dtype=tl.float32)
            i = 0
            while i < taps_y:
                total_y += _weight(low_y + i, end_y, centre_y, steep_y)
                i += 1
            total_x = tl.zeros([block], dtype=tl.float32)
            j = 0
            while j < taps_x:
                total_x += _weight(low_x + j, end_x, centre_x, steep_x)
                j += 1
            # Values outside the window are not loaded, whatever their weights are; they only must not be 0 / 0.
            per_y = 1.0 / tl.where(inside, total_y, 1.0)
            per_x = 1.0 / tl.where(inside, total_x, 1.0)
            value = tl.zeros([block], dtype=tl.float32)
            i = 0
            while i < taps_y:
                from_y = low_y + i
                line = from_y * width
                used = inside & (from_y < end_y)
                across = tl.zeros([block], dtype=tl.float32)
                j = 0
                while j < taps_x:
                    from_x = low_x + j
                    level = tl.load(base + ((line + from_x) * 3 + channel), mask=used & (from_x < end_x), other=0)
                    across += _weight(from_x, end_x, centre_x, steep_x) * level.to(tl.float32)
                    j += 1
                # As on the CPU, each row is rounded to a grey level before the rows are added up.
                value += _weight(from_y, end_y, centre_y, steep_y) * tl.floor(across * per_x + 0.5)
                i += 1
            value = tl.floor(value * per_y + 0.5)
        else:
            value = tl.load(base + ((y * width + x) * 3 + channel), mask=inside, other=0).to(tl.float32)
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
    table: NDArray[np.int64], placements: Sequence[Placement], augmentation: Augmentation
) -> NDArray[np.int64]:
    """Return the table that the kernels read, int64 [B, COLUMNS].

    Args:
        table: offset, height and width of each sample, int64 [B, 3].
        placements: one for each sample, without rotation and blur.
        augmentation: of which the jitter is used.
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
    # An axis of equal extents is copied: the only weight there is the first.
    packed[:, _TAPS : _TAPS + 2] = np.where(extents == sizes, 1, np.ceil(2 * np.maximum(scales, 1)))
    if augmentation.jitter.active:
        brightness, contrast, saturation, hue = augmentation.jitter.factors(
            np.array([placement.colours for placement in placements])
        ).T
        factors = np.stack([brightness, contrast, 1 - contrast, saturation, 1 - saturation, hue], axis=1)
        packed[:, _FACTORS:] = factors.astype(np.float32).view(np.int32)
        packed[:, _IMAGE] = np.cumsum(3 * area) - 3 * area
    return packed


def _on(device: torch.device) -> AbstractContextManager[Any]:
    """Make a CUDA device the current one, to which Triton launches its kernels."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


class BatchKernel:
    """Augments batches of one size on one device, without waiting for the device."""

    def __init__(self, augmentation: Augmentation, mean: Sequence[float], std: Sequence[float]) -> None:
        """Set what is the same for all batches.

        Args:
            augmentation: without rotation and blur.
            mean: in grey levels, by channel.
            std: likewise.
        """
        assert supports(augmentation), "rotation and blur are not computed here"
        self._augmentation = augmentation
        self._numbers = tuple(float(value) for value in (*mean, *std, *augmentation.fill))

    @staticmethod
    def fits(raw: RawBatch) -> bool:
        """Return whether every sample is small enough for the kernels' 32-bit offsets."""
        return int((raw.table[:, 1] * raw.table[:, 2]).max()) * 4 < LARGEST

    def __call__(self, raw: RawBatch, placements: Sequence[Placement]) -> tuple[Tensor, Tensor]:
        """Return new images, float32 [B, 3, H, W] in channels-last layout, and labels, uint8 [B, H, W]."""
        device, batch = raw.pixels.device, len(placements)
        height, width = self._augmentation.crop
        packed = pack_placements(raw.table, placements, self._augmentation)
        # Pinned memory is used again only after the copy; and small: the host does not wait.
        host = torch.empty(packed.shape, dtype=torch.int64, pin_memory=device.type == "cuda")
        host.numpy()[:] = packed
        table = host.to(device, non_blocking=True)
        images = torch.empty(batch, height, width, 3, device=device)
        labels = torch.empty(batch, height, width, dtype=torch.uint8, device=device)
        with _on(device):
            pixels = self._recoloured(raw, table) if self._augmentation.jitter.active else raw.pixels
            tiles = -(-3 * height * width // BLOCK) - (-height * width // BLOCK)
            _place[(tiles, batch)](
                images,
                labels,
                pixels,
                raw.pixels,
                table,
                *self._numbers,
                crop_height=height,
                crop_width=width,
                resize=self._augmentation.scale is not None,
                ignored=IGNORE,
                columns=COLUMNS,
                block=BLOCK,
            )
        return images.permute(0, 3, 1, 2), labels

    def _recoloured(self, raw: RawBatch, table: Tensor) -> Tensor:
        """Return the images [H, W, 3] in their new colours, one after the other, as a flat uint8 tensor."""
        jitter, device, areas = self._augmentation.jitter, raw.pixels.device, raw.table[:, 1] * raw.table[:, 2]
        target = torch.empty(3 * int(areas.sum()), dtype=torch.uint8, device=device)
        sums = torch.zeros(len(areas), dtype=torch.int64, device=device)
        grid = (-(-int(areas.max()) // BLOCK), len(areas))
        brightness = jitter.brightness != 0
        if jitter.contrast:
            _sum_grey[grid](sums, raw.pixels, table, brightness=brightness, columns=COLUMNS, block=BLOCK)
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
        )
        return target


def supports(augmentation: Augmentation) -> bool:
    """Return whether the kernels compute everything that an augmentation may do."""
    return not augmentation.rotate and not augmentation.blur.probability
