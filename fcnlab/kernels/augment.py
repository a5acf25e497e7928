"""Resize, crop, flip, pad and normalise a sample in one pass on the CPU, with the bits of torch's operators."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from fcnlab.constants import IGNORE_INDEX
from fcnlab.kernels.build import load_library
from fcnlab.kernels.inputs import DecodedSample, Placement, Window


class _Sample(ctypes.Structure):
    """As in augment.c."""

    _fields_ = (
        ("image", ctypes.c_void_p),
        ("label", ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in ("height", "width", "resized_height", "resized_width")),
        *((name, ctypes.c_int64) for name in ("top", "left", "rows", "columns", "flip")),
    )


class _Crop(ctypes.Structure):
    """As in augment.c."""

    _fields_ = (
        ("height", ctypes.c_int64),
        ("width", ctypes.c_int64),
        ("fill", ctypes.c_uint8 * 3),
        ("ignore", ctypes.c_uint8),
        ("mean", ctypes.c_float * 3),
        ("std", ctypes.c_float * 3),
    )


class CropWriter:
    """Writes samples as crops of one size, normalised by one mean and deviation."""

    def __init__(
        self,
        compiled: ctypes.CDLL,
        crop: tuple[int, int],
        fill: tuple[int, int, int],
        mean: Sequence[float],
        std: Sequence[float],
    ) -> None:
        """As `placer`."""
        three = ctypes.c_float * 3
        self._compiled = compiled
        self._crop = _Crop(*crop, (ctypes.c_uint8 * 3)(*fill), IGNORE_INDEX, three(*mean), three(*std))

    def __call__(self, sample: DecodedSample, placement: Placement, image: Tensor, label: Tensor) -> bool:
        """Resize, crop, pad and flip a sample as it is placed; False where that cannot be done here, and nothing is.

        Args:
            sample: on the CPU.
            placement: of which colours, rotation and blur are not looked at.
            image: float32 [height, width, 3] of the crop, to be written.
            label: uint8 [height, width] of the crop, to be written.
        """
        assert image.is_contiguous() and label.is_contiguous(), "parts of a batch"
        pixels, classes, window = (
            sample.image.permute(1, 2, 0).contiguous(),
            sample.label.contiguous(),
            placement.window,
        )
        given = _Sample(
            pixels.data_ptr(),
            classes.data_ptr(),
            *classes.shape,
            *placement.size,
            window.top,
            window.left,
            window.height,
            window.width,
            placement.flip,
        )
        failed = self._compiled.place(
            ctypes.byref(given),
            ctypes.byref(self._crop),
            ctypes.c_void_p(image.data_ptr()),
            ctypes.c_void_p(label.data_ptr()),
        )
        return not failed


def create_crop_writer(
    crop: tuple[int, int], fill: tuple[int, int, int], mean: Sequence[float], std: Sequence[float]
) -> CropWriter | None:
    """What writes crops; None where there is no compiler, or where its arithmetic has not the bits of torch's.

    Args:
        crop: height and width.
        fill: grey levels, by channel, around an image that is smaller than the crop.
        mean: in grey levels, by channel.
        std: likewise.
    """
    compiled = load_library("augment")
    if compiled is None or not _exact(compiled, mean, std):
        return None
    return CropWriter(compiled, crop, fill, mean, std)


def _exact(compiled: ctypes.CDLL, mean: Sequence[float], std: Sequence[float]) -> bool:
    """Whether each grey level of each channel becomes what torch's subtraction and division make of it."""
    levels = torch.arange(256, dtype=torch.uint8).expand(3, 1, 256)
    label = torch.zeros(1, 256, dtype=torch.uint8)
    as_it_is = Placement(np.zeros(4), (1, 256), 0.0, Window(0, 0, 1, 256), None, False)
    found = torch.empty(1, 256, 3)
    write = CropWriter(compiled, (1, 256), (0, 0, 0), mean, std)
    expected = (levels.permute(1, 2, 0).float() - torch.tensor(mean)) / torch.tensor(std)
    return write(DecodedSample(levels, label), as_it_is, found, label.clone()) and torch.equal(found, expected)
