"""Augmentation of whole batches on CUDA by Triton kernels.

Import this module only where `is_triton_available` is true; the fallback is in `fcnlab.data.batches`.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fcnlab.config.augmentation import ColorJitter
from fcnlab.constants import IGNORE_INDEX
from fcnlab.kernels import triton_augment_kernels as kernels
from fcnlab.kernels import triton_jitter_kernels as jitter_kernels
from fcnlab.kernels import triton_sample_table as columns
from fcnlab.kernels.inputs import AugmentationParams, RawBatch, compute_color_factors

BLOCK = 512
"""Output values of one program: four for each thread, which are stored at once."""

MAX_SAMPLE_BYTES = 2**31
"""Limit of the bytes of one sample: offsets within it are 32-bit integers."""

_TAPS = slice(columns.TAPS_Y.value, columns.TAPS_X.value + 1)

_AXIS_BLOCK = 256
"""Positions of an axis whose weights one step of a program computes."""


def pack_params(
    table: NDArray[np.int64], params: Sequence[AugmentationParams], jitter: ColorJitter
) -> NDArray[np.int64]:
    """Encode the parameters of a batch as the table that the kernels read.

    Args:
        table: offset, height and width of each sample, int64 [B, 3].
        params: one for each sample, without rotation and blur.
        jitter: color jitter of the augmentation.

    Returns:
        The table that `fcnlab.kernels.triton_sample_table` describes.
    """
    packed = np.zeros((len(params), columns.COLUMNS.value), dtype=np.int64)
    extents = table[:, 1:]
    area = extents[:, 0] * extents[:, 1]
    sampled = np.array(
        [(*p.size, p.window.top, p.window.left, p.window.height, p.window.width, p.flip) for p in params],
        dtype=np.int64,
    )
    sizes = sampled[:, :2]
    packed[:, columns.SOURCE.value] = packed[:, columns.IMAGE.value] = table[:, 0]
    packed[:, columns.LABEL.value] = table[:, 0] + 3 * area
    packed[:, columns.HEIGHT.value : columns.WIDTH.value + 1] = extents
    packed[:, columns.TOP.value : columns.FLIP.value + 1] = sampled[:, 2:]
    scales = extents.astype(np.float32) / sizes.astype(np.float32)
    packed[:, columns.SCALE_Y.value : columns.SCALE_X.value + 1] = scales.view(np.int32)
    # From float64 factors, as on the CPU, so that the weights are those of PyTorch.
    packed[:, columns.STEP_Y.value :] = (1 / (sizes / extents)).view(np.int64)
    # An axis of equal extents is copied: it has one weight.
    packed[:, _TAPS] = np.where(extents == sizes, 1, np.ceil(2 * np.maximum(scales, 1)))
    if jitter.active:
        draws = np.array([p.color_draws for p in params])
        brightness, contrast, saturation, hue = compute_color_factors(jitter, draws).T
        factors = np.stack([brightness, contrast, 1 - contrast, saturation, 1 - saturation, hue], axis=1)
        packed[:, columns.BRIGHTNESS.value : columns.HUE.value + 1] = factors.astype(np.float32).view(np.int32)
        packed[:, columns.IMAGE.value] = np.cumsum(3 * area) - 3 * area
    return packed


def _on(device: torch.device) -> AbstractContextManager[Any]:
    """Make a CUDA device the current one, where Triton launches kernels."""
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
            resize: samples can be resized.
        """
        self._crop, self._jitter, self._resize = crop, jitter, resize
        self._numbers = tuple(float(value) for value in (*mean, *std, *fill))

    @staticmethod
    def fits(raw: RawBatch) -> bool:
        """Return True if every sample is small enough for 32-bit offsets.

        Args:
            raw: the samples of a batch.
        """
        return int((raw.table[:, 1] * raw.table[:, 2]).max()) * 4 < MAX_SAMPLE_BYTES

    def __call__(self, raw: RawBatch, params: Sequence[AugmentationParams]) -> tuple[Tensor, Tensor]:
        """Augment a batch.

        Args:
            raw: the samples of the batch on the device.
            params: one for each sample.

        Returns:
            New images, float32 [B, 3, H, W] in channels-last layout, and labels, uint8 [B, H, W].
        """
        device, batch = raw.pixels.device, len(params)
        height, width = self._crop
        packed = pack_params(raw.table, params, self._jitter)
        # PyTorch reuses pinned memory only after the copy, so that the host does not have to wait.
        host = torch.empty(packed.shape, dtype=torch.int64, pin_memory=device.type == "cuda")
        host.numpy()[:] = packed
        table = host.to(device, non_blocking=True)
        images = torch.empty(batch, height, width, 3, device=device)
        labels = torch.empty(batch, height, width, dtype=torch.uint8, device=device)
        with _on(device):
            pixels = self._jitter_colors(raw, table) if self._jitter.active else raw.pixels
            kept, axes = self._compute_weights(table, packed)
            tiles = -(-3 * height * width // BLOCK) - (-height * width // BLOCK)
            kernels.place[(tiles, batch)](
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
                block=BLOCK,
                **kernels.LAUNCH_OPTIONS,
            )
        return images.permute(0, 3, 1, 2), labels

    def _compute_weights(self, table: Tensor, packed: NDArray[np.int64]) -> tuple[int, tuple[Tensor, Tensor, Tensor]]:
        """Compute the resizing weights of all axes.

        Args:
            table: `packed` on the device.
            packed: as `pack_params` returns it.

        Returns:
            The number of weights of each position, and the outputs of `compute_weights`: first source positions,
            weights and precisions. They have one element each if nothing is resized.
        """
        resize, longest = self._resize, max(self._crop)
        kept = int(packed[:, _TAPS].max())
        shapes = [(len(packed), 2, longest), (len(packed), 2, kept, longest), (len(packed), 2)]
        firsts, weights, precisions = (
            torch.empty(shape if resize else (1,), dtype=dtype, device=table.device)
            for shape, dtype in zip(shapes, (torch.int32, torch.int16, torch.int32), strict=True)
        )
        if resize:
            kernels.compute_weights[(2, len(packed))](
                firsts,
                weights,
                precisions,
                table,
                kept,
                longest=longest,
                block=_AXIS_BLOCK,
                **kernels.LAUNCH_OPTIONS,
            )
        return kept, (firsts, weights, precisions)

    def _jitter_colors(self, raw: RawBatch, table: Tensor) -> Tensor:
        """Return the images [H, W, 3] with their new colors, one after the other, as a flat uint8 tensor."""
        jitter, device, areas = self._jitter, raw.pixels.device, raw.table[:, 1] * raw.table[:, 2]
        target = torch.empty(3 * int(areas.sum()), dtype=torch.uint8, device=device)
        sums = torch.zeros(len(areas), dtype=torch.int64, device=device)
        grid = (-(-int(areas.max()) // BLOCK), len(areas))
        brightness = jitter.brightness != 0
        if jitter.contrast:
            jitter_kernels.sum_gray[grid](
                sums, raw.pixels, table, brightness=brightness, block=BLOCK, **kernels.LAUNCH_OPTIONS
            )
        jitter_kernels.jitter_colors[grid](
            target,
            raw.pixels,
            sums,
            table,
            brightness=brightness,
            contrast=jitter.contrast != 0,
            saturate=jitter.saturation != 0,
            turn_hue=jitter.hue != 0,
            block=BLOCK,
            **kernels.LAUNCH_OPTIONS,
        )
        return target
