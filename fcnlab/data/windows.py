"""Resizing and rotation of images and labels, limited to a window of the result.

The result equals that of resizing or rotating the whole image and cropping it. Inputs are not changed, and no function
synchronizes a device.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import grid_sample
from torchvision.transforms.v2.functional import gaussian_blur

from fcnlab.constants import IGNORE_INDEX
from fcnlab.kernels.inputs import Window


def resize_image(image: Tensor, size: tuple[int, int], window: Window) -> Tensor:
    """Return a window of an image that is resized bilinearly with antialiasing.

    The image is computed from its upper left corner to the end of the window, because PyTorch's kernel takes a scale
    but no offset.

    Args:
        image: uint8 [C, H, W].
        size: height and width after resizing.
        window: part of the resized image.
    """
    height, width = image.shape[1:]
    if size == (height, width):
        return window.crop(image)
    # Rows below the window's reach are not even read; a pixel of the result reaches one pixel of the coarser grid.
    reach = max(1.0, height / size[0])
    rows = min(height, math.ceil(window.bottom * height / size[0] + reach) + 1)
    # A batch of one in channels-last layout, for which PyTorch has a faster kernel.
    source = image[:, :rows].permute(1, 2, 0).contiguous()[None].permute(0, 3, 1, 2)
    exact = source if source.device.type == "cpu" else source.float()  # CUDA has no kernel for uint8
    # An axis of equal extents is copied, whatever the scale; one pixel more, and it is resized.
    bottom = window.bottom + (window.bottom == rows and size[0] != height)
    right = window.right + (window.right == width and size[1] != width)
    done = torch.ops.aten._upsample_bilinear2d_aa(exact, [bottom, right], False, size[0] / height, size[1] / width)
    return window.crop(done[0] if done.dtype == torch.uint8 else done[0].round_().to(torch.uint8))


def resize_label(label: Tensor, size: tuple[int, int], window: Window) -> Tensor:
    """Return a window of a label that is resized to the nearest pixels, as torchvision's NEAREST_EXACT.

    Args:
        label: uint8 [H, W].
        size: height and width after resizing.
        window: part of the resized label.
    """
    if size == tuple(label.shape):
        return window.crop(label)
    rows = _nearest(label.shape[0], size[0], window.top, window.bottom)
    columns = _nearest(label.shape[1], size[1], window.left, window.right)
    if label.device.type == "cpu":  # numpy gathers bytes several times faster than torch
        return torch.from_numpy(label.numpy()[rows].take(columns, axis=1))
    at = (torch.from_numpy(index).to(label.device, non_blocking=True) for index in (rows, columns))
    return label.index_select(0, next(at)).index_select(1, next(at))


def _nearest(source: int, target: int, first: int, end: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Return the source positions of the target positions first..end - 1, rounded as in PyTorch."""
    scale = np.float32(source) / np.float32(target)
    positions = (np.arange(first, end, dtype=np.float32) + np.float32(0.5)) * scale
    return np.minimum(positions.astype(np.int64), source - 1)


def rotate_image(image: Tensor, degrees: float, window: Window, fill: tuple[int, ...]) -> Tensor:
    """Return a window of an image that is rotated bilinearly about its center, at the same size.

    Equal to torchvision's `rotate`, which applies the weight of pixels at the border twice.

    Args:
        image: uint8 [C, H, W].
        degrees: rotation, counter-clockwise.
        window: part of the rotated image.
        fill: value of each channel outside the image.
    """
    grid = _grid(image, degrees, window)
    planes = torch.cat([image.float(), torch.ones_like(image[:1], dtype=torch.float32)])
    sampled = grid_sample(planes[None], grid, mode="bilinear", padding_mode="zeros", align_corners=False)[0]
    planes, inside = sampled[:-1], sampled[-1]
    for plane, level in zip(planes, fill, strict=True):
        plane.sub_(level).mul_(inside).add_(level)
    return planes.round_().to(torch.uint8)


def rotate_label(label: Tensor, degrees: float, window: Window) -> Tensor:
    """Return a window of a label that is rotated like its image, to the nearest pixels; outside is IGNORE_INDEX.

    Args:
        label: uint8 [H, W].
        degrees: rotation, counter-clockwise.
        window: part of the rotated label.
    """
    grid = _grid(label, degrees, window)
    # Labels are increased by one, so that 0 means outside.
    above = grid_sample(label.float()[None, None] + 1, grid, mode="nearest", padding_mode="zeros", align_corners=False)
    return torch.where(above == 0, float(IGNORE_INDEX), above - 1)[0, 0].to(torch.uint8)


def _grid(pixels: Tensor, degrees: float, window: Window) -> Tensor:
    """Return the source positions of a window for `grid_sample`, [1, h, w, 2]: x before y, from -1 to 1."""
    height, width = pixels.shape[-2:]
    x = torch.arange(window.left, window.right, device=pixels.device, dtype=torch.float32) - (width - 1) / 2
    y = torch.arange(window.top, window.bottom, device=pixels.device, dtype=torch.float32) - (height - 1) / 2
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    from_x = cosine * x - sine * y[:, None]
    from_y = sine * x + cosine * y[:, None]
    return torch.stack([from_x / (width / 2), from_y / (height / 2)], dim=-1)[None]


def blur_image(image: Tensor, sigma: float) -> Tensor:
    """Return an image after a Gaussian blur that is truncated at three standard deviations; borders are reflected.

    Args:
        image: uint8 [C, h, w].
        sigma: standard deviation in pixels.
    """
    radius = math.ceil(3 * sigma)
    width, height = (2 * min(radius, extent - 1) + 1 for extent in (image.shape[2], image.shape[1]))
    return gaussian_blur(image, [width, height], [sigma, sigma])
