"""The class with the greatest score of each pixel, in C."""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from fcnlab.config.mask_values import MAX_CLASSES
from fcnlab.kernels.build import C_SUFFIX, load_library
from fcnlab.kernels.parallel import count_parts


def argmax_classes(scores: Tensor) -> Tensor:
    """Return the class with the greatest score at each pixel, the first of equal ones; nan is greater than all.

    Equal to `scores.argmax(1)`, which runs if the kernel in C is not available.

    Args:
        scores: [n, num_classes, pixels] with num_classes at most 255, on the CPU, with any strides.

    Returns:
        Classes, uint8 [n, pixels].
    """
    n, num_classes, pixels = scores.shape
    assert num_classes <= MAX_CLASSES, "classes are uint8, and 255 is the label of ignored pixels"
    compiled = load_library("argmax") if scores.dtype in C_SUFFIX else None
    if compiled is None:
        return scores.argmax(1).to(torch.uint8)
    if scores.stride(2) != 1:
        scores = scores.contiguous()
    predicted = torch.empty(n, pixels, dtype=torch.uint8)
    function = getattr(compiled, f"argmax_{C_SUFFIX[scores.dtype]}")
    function.restype = None
    function(
        ctypes.c_void_p(scores.data_ptr()),
        *map(ctypes.c_long, (n, scores.stride(0), scores.stride(1), num_classes, pixels)),
        ctypes.c_void_p(predicted.data_ptr()),
        ctypes.c_long(count_parts(scores.numel())),
    )
    return predicted
