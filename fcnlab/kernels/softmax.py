"""Softmax probabilities of some classes, in C."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping

import torch
from torch import Tensor

from fcnlab.config.mask_values import MAX_CLASSES
from fcnlab.kernels.build import C_SUFFIX, load_library
from fcnlab.kernels.parallel import count_parts


def is_available() -> bool:
    """Return True if the kernel is or can be compiled."""
    return load_library("softmax") is not None


def softmax_of_classes(scores: Tensor, wanted: Mapping[int, Tensor]) -> None:
    """Write the probabilities of some classes.

    Args:
        scores: [n, num_classes, pixels] on the CPU, float32 or bfloat16, contiguous along pixels, with any other
            strides.
        wanted: tensors that receive the probabilities, by class: float32 [n, pixels], contiguous.
    """
    library = load_library("softmax")
    assert library is not None, "is_available must be true"
    n, num_classes, pixels = scores.shape
    assert num_classes <= MAX_CLASSES and scores.stride(2) == 1 and scores.device.type == "cpu"
    function = getattr(library, f"softmax_{C_SUFFIX[scores.dtype]}")
    function.restype = None
    function(
        ctypes.c_void_p(scores.data_ptr()),
        *map(ctypes.c_long, (n, scores.stride(0), scores.stride(1), num_classes, pixels)),
        class_pointers(wanted, num_classes, (n, pixels)),
        ctypes.c_long(count_parts(scores.numel())),
    )


def class_pointers(
    planes: Mapping[int, Tensor], num_classes: int, shape: tuple[int, int]
) -> ctypes.Array[ctypes.c_void_p]:
    """Return the addresses of tensors by class for a C kernel, null for classes without one.

    Args:
        planes: contiguous float32 tensors on the CPU, by class.
        num_classes: number of classes.
        shape: required shape of each tensor.
    """
    pointers = (ctypes.c_void_p * num_classes)()
    for index, plane in planes.items():
        assert plane.shape == shape and plane.is_contiguous() and plane.dtype == torch.float32
        pointers[index] = plane.data_ptr()
    return pointers
