"""C kernel that resizes, crops, flips, pads and normalizes a sample in one pass; bit for bit equal to PyTorch."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from fcnlab.constants import IGNORE_INDEX
from fcnlab.kernels.build import load_library
from fcnlab.kernels.inputs import AugmentationParams, DecodedSample, Window


class _Sample(ctypes.Structure):
    """The struct of the same name in augment.c."""

    _fields_ = (
        ("image", ctypes.c_void_p),
        ("label", ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in ("height", "width", "resized_height", "resized_width")),
        *((name, ctypes.c_int64) for name in ("top", "left", "rows", "columns", "flip")),
    )


class _Crop(ctypes.Structure):
    """The struct of the same name in augment.c."""

    _fields_ = (
        ("height", ctypes.c_int64),
        ("width", ctypes.c_int64),
        ("fill", ctypes.c_uint8 * 3),
        ("ignore", ctypes.c_uint8),
        ("mean", ctypes.c_float * 3),
        ("std", ctypes.c_float * 3),
    )


class CropWriter:
    """Writes samples as normalized crops of one size."""

    def __init__(
        self,
        compiled: ctypes.CDLL,
        crop: tuple[int, int],
        fill: tuple[int, int, int],
        mean: Sequence[float],
        std: Sequence[float],
    ) -> None:
        """Prepare to write crops with a compiled library.

        Args:
            compiled: the library of augment.c.
            crop: height and width.
            fill: red, green and blue of padded pixels.
            mean: mean of each channel, in 0..255.
            std: standard deviation of each channel, in 0..255.
        """
        three = ctypes.c_float * 3
        self._compiled = compiled
        self._crop = _Crop(*crop, (ctypes.c_uint8 * 3)(*fill), IGNORE_INDEX, three(*mean), three(*std))

    def __call__(self, sample: DecodedSample, params: AugmentationParams, image: Tensor, label: Tensor) -> bool:
        """Resize, crop, flip, pad and normalize a sample.

        Args:
            sample: sample on the CPU.
            params: parameters of the augmentation; colors, rotation and blur are not applied.
            image: output, float32 [height, width, 3] with the size of the crop.
            label: output, uint8 [height, width] with the size of the crop.

        Returns:
            False if the kernel cannot process this sample; the outputs are then undefined.
        """
        assert image.is_contiguous() and label.is_contiguous(), "outputs must be contiguous"
        pixels, classes = sample.image.permute(1, 2, 0).contiguous(), sample.label.contiguous()
        window = params.window
        struct = _Sample(
            pixels.data_ptr(),
            classes.data_ptr(),
            *classes.shape,
            *params.size,
            window.top,
            window.left,
            window.height,
            window.width,
            params.flip,
        )
        failed = self._compiled.place(
            ctypes.byref(struct),
            ctypes.byref(self._crop),
            ctypes.c_void_p(image.data_ptr()),
            ctypes.c_void_p(label.data_ptr()),
        )
        return not failed


def create_crop_writer(
    crop: tuple[int, int], fill: tuple[int, int, int], mean: Sequence[float], std: Sequence[float]
) -> CropWriter | None:
    """Create a writer of crops.

    Args:
        crop: height and width.
        fill: red, green and blue of padded pixels.
        mean: mean of each channel, in 0..255.
        std: standard deviation of each channel, in 0..255.

    Returns:
        The writer, or None if there is no compiler or the results differ from PyTorch's.
    """
    compiled = load_library("augment")
    if compiled is None or not _equals_torch(compiled, mean, std):
        return None
    return CropWriter(compiled, crop, fill, mean, std)


def _equals_torch(compiled: ctypes.CDLL, mean: Sequence[float], std: Sequence[float]) -> bool:
    """Return True if every value of every channel is normalized to the same bits as by PyTorch."""
    levels = torch.arange(256, dtype=torch.uint8).expand(3, 1, 256)
    label = torch.zeros(1, 256, dtype=torch.uint8)
    identity = AugmentationParams(np.zeros(4), (1, 256), 0.0, Window(0, 0, 1, 256), None, False)
    found = torch.empty(1, 256, 3)
    write = CropWriter(compiled, (1, 256), (0, 0, 0), mean, std)
    expected = (levels.permute(1, 2, 0).float() - torch.tensor(mean)) / torch.tensor(std)
    return write(DecodedSample(levels, label), identity, found, label.clone()) and torch.equal(found, expected)
