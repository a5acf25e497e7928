"""The Lovász-Softmax loss of probabilities and its gradient, in C."""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from fcnlab.constants import IGNORE_INDEX
from fcnlab.kernels.build import load_library

MAX_PIXELS = 2**31 - 1


def is_available() -> bool:
    """Return True if the kernel is or can be compiled."""
    return load_library("lovasz") is not None


def lovasz_of_probabilities(probabilities: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the Lovász-Softmax loss and its gradient: Berman et al., CVPR 2018, section 3.

    The loss is the mean over the classes that occur.

    Args:
        probabilities: float32 [C, N] on the CPU, contiguous; N is at most `MAX_PIXELS`.
        labels: uint8 [N], contiguous: classes, or 255 for ignored pixels.

    Returns:
        The loss, a float32 scalar, and its gradient, float32 [C, N]; both are 0 if all pixels are ignored.

    Raises:
        IndexError: a label is neither a class nor 255.
    """
    library = load_library("lovasz")
    assert library is not None, "is_available must be true"
    classes, pixels = probabilities.shape
    assert probabilities.dtype == torch.float32 and probabilities.is_contiguous() and labels.is_contiguous()
    assert pixels <= MAX_PIXELS, "pixels are numbered by 31 bits"
    counts = torch.bincount(labels, minlength=IGNORE_INDEX + 1)[:IGNORE_INDEX]
    occurring = counts.nonzero().flatten().tolist()
    if occurring and occurring[-1] >= classes:
        raise IndexError(f"label {occurring[-1]} is out of range for {classes} classes")
    items, spare = torch.empty(2, pixels, dtype=torch.int64)
    gradient = torch.zeros_like(probabilities)
    function = library.lovasz
    function.restype = ctypes.c_double
    loss = 0.0
    for index in occurring:
        loss += function(
            ctypes.c_void_p(probabilities[index].data_ptr()),
            ctypes.c_void_p(labels.data_ptr()),
            ctypes.c_long(pixels),
            ctypes.c_long(index),
            ctypes.c_double(1 / len(occurring)),
            ctypes.c_void_p(items.data_ptr()),
            ctypes.c_void_p(spare.data_ptr()),
            ctypes.c_void_p(gradient[index].data_ptr()),
        )
    return torch.tensor(loss / max(1, len(occurring)), dtype=torch.float32), gradient
