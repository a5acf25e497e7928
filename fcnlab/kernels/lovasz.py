"""The Lovász-Softmax loss of probabilities and its gradient, in C."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping

import torch
from torch import Tensor

from fcnlab.constants import IGNORE_INDEX
from fcnlab.kernels.build import load_library
from fcnlab.kernels.parallel import count_parts

MAX_PIXELS = 2**31 - 1


def is_available() -> bool:
    """Return True if the kernel is or can be compiled."""
    return load_library("lovasz") is not None


def lovasz_of_probabilities(probabilities: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the Lovász-Softmax loss and its gradient: Berman et al., CVPR 2018, section 3.

    The loss is the mean over the classes that occur.

    Args:
        probabilities: float32 [num_classes, N] on the CPU, contiguous; N is at most `MAX_PIXELS`.
        labels: uint8 [N], contiguous: classes, or 255 for ignored pixels.

    Returns:
        The loss, a float32 scalar, and its gradient, float32 [num_classes, N]; both are 0 if all pixels are ignored.

    Raises:
        IndexError: a label is neither a class nor 255.
    """
    assert probabilities.dtype == torch.float32 and probabilities.is_contiguous()
    occurring = find_occurring_classes(labels, len(probabilities))
    gradient = torch.zeros_like(probabilities)
    of_classes, gradients = ({index: values[index] for index in occurring} for values in (probabilities, gradient))
    return _compute(of_classes, labels, 1.0, gradients), gradient


def lovasz_of_classes_(probabilities: Mapping[int, Tensor], labels: Tensor, factor: float) -> Tensor:
    """Compute the Lovász-Softmax loss times a factor, and overwrite the probabilities by its gradient.

    Args:
        probabilities: probabilities of each class that occurs in the labels, float32 [N] on the CPU, contiguous; N is
            at most `MAX_PIXELS`. Other classes have a gradient of 0.
        labels: uint8 [N], contiguous: classes, or 255 for ignored pixels.
        factor: factor on the loss.

    Returns:
        The loss, a float32 scalar.
    """
    return _compute(probabilities, labels, factor, probabilities)


def find_occurring_classes(labels: Tensor, num_classes: int) -> list[int]:
    """Return the classes of at least one pixel.

    Args:
        labels: uint8, of any shape: classes, or 255 for ignored pixels.
        num_classes: number of classes.

    Raises:
        IndexError: a label is neither a class nor 255.
    """
    counts = torch.bincount(labels.flatten(), minlength=IGNORE_INDEX + 1)[:IGNORE_INDEX]
    occurring: list[int] = counts.nonzero().flatten().tolist()
    if occurring and occurring[-1] >= num_classes:
        raise IndexError(f"label {occurring[-1]} is out of range for {num_classes} classes")
    return occurring


def _compute(
    probabilities: Mapping[int, Tensor],
    labels: Tensor,
    factor: float,
    gradients: Mapping[int, Tensor],
) -> Tensor:
    """Write the gradient of each class, and return the mean loss of the classes times a factor."""
    library = load_library("lovasz")
    assert library is not None, "is_available must be true"
    assert labels.is_contiguous() and labels.numel() <= MAX_PIXELS, "pixels are numbered by 31 bits"
    function = library.lovasz
    function.restype = None
    pixels, count = labels.numel(), len(probabilities)
    scale = factor / max(1, count)
    parts = max(1, min(count_parts(count * pixels), count))
    space, losses = torch.empty(parts, 2, pixels, dtype=torch.int64), torch.empty(count, dtype=torch.float64)
    function(
        _pointers(probabilities),
        ctypes.c_void_p(labels.data_ptr()),
        ctypes.c_long(pixels),
        (ctypes.c_long * count)(*probabilities),
        ctypes.c_long(count),
        ctypes.c_double(scale),
        _pointers({index: gradients[index] for index in probabilities}),
        ctypes.c_long(parts),
        ctypes.c_void_p(space.data_ptr()),
        ctypes.c_void_p(losses.data_ptr()),
    )
    return torch.tensor(scale * sum(losses.tolist()), dtype=torch.float32)


def _pointers(planes: Mapping[int, Tensor]) -> ctypes.Array[ctypes.c_void_p]:
    """Return the addresses of tensors, in their order."""
    return (ctypes.c_void_p * len(planes))(*(plane.data_ptr() for plane in planes.values()))
