"""Cross entropy that overwrites scores by their gradient: in C, in Triton, and in PyTorch operators."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from fcnlab.constants import IGNORE_INDEX
from fcnlab.kernels.build import C_SUFFIX, load_library
from fcnlab.kernels.parallel import count_parts
from fcnlab.kernels.softmax import class_pointers
from fcnlab.kernels.switch import is_triton_available

_TRITON_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
_MAX_TRITON_CLASSES = 256
"""With more classes, the scores of a block of pixels do not fit the registers of a Triton program."""


@dataclass(frozen=True)
class PixelLoss:
    """Cross entropy of one pixel with class weights and label smoothing, as `torch.nn.functional.cross_entropy`.

    With scores z and lse = log sum exp z, the loss of a pixel of class y is
    ``own[y] (lse - z[y]) + sum_c even[c] (lse - z[c])``. For class weights w and label smoothing ε, own = (1 - ε) w and
    even = ε w / C.

    Attributes:
        own: weights of a pixel's own class, float32 [num_classes], on the device of the scores.
        even: weights of all classes for every pixel, float32 [num_classes], on the device of the scores.
        smooth: True if `even` is not zero.
    """

    own: Tensor
    even: Tensor
    smooth: bool

    @classmethod
    def from_class_weights(
        cls, num_classes: int, weights: Tensor | None, smoothing: float, device: torch.device
    ) -> PixelLoss:
        """Create the loss from class weights and label smoothing.

        Args:
            num_classes: number of classes C.
            weights: class weights [num_classes]; None for 1.
            smoothing: label smoothing ε.
            device: device of the scores.
        """
        weights = torch.ones(num_classes, device=device) if weights is None else weights.to(device, torch.float32)
        return cls((1 - smoothing) * weights, smoothing / num_classes * weights, smoothing > 0)


def cross_entropy_(
    scores: Tensor,
    labels: Tensor,
    scales: Tensor,
    loss: PixelLoss,
    probability_gradients: Mapping[int, Tensor] | None = None,
) -> Tensor:
    """Compute the cross entropy of scores and overwrite the scores by their gradient.

    Softmax, loss and gradient are computed in float32; the gradient is rounded to the dtype of the scores. It runs in C
    on the CPU and in Triton on CUDA; if neither is available, `cross_entropy_fallback_` is used.

    Args:
        scores: [n, num_classes, pixels], float32, bfloat16 or float16, contiguous along pixels, with any other strides.
        labels: uint8 [n, pixels]: classes, or 255 for an ignored pixel, whose gradient is 0.
        scales: float32 [n], the factor on the loss of each row.
        loss: the loss of one pixel.
        probability_gradients: gradients of another loss with respect to the probabilities of a class, by class: float32
            [n, pixels], contiguous; 0 for classes that are missing. The gradient of that loss with respect to the
            scores is added. Only on the CPU.

    Returns:
        The sum of the cross entropies, a float32 scalar on the device of the scores. On CUDA it is nan if a label is
        neither a class nor 255: an error would need a synchronization in each step, and a device assert would end the
        process. Training then stops at the end of the epoch, because its loss is not finite.

    Raises:
        IndexError: a label is neither a class nor 255, on the CPU.
    """
    fits_triton = scores.dtype in _TRITON_DTYPES and scores.shape[1] <= _MAX_TRITON_CLASSES
    if probability_gradients is None and fits_triton and is_triton_available(scores.device):
        from fcnlab.kernels.triton_cross_entropy import launch_cross_entropy

        assert scores.stride(2) == 1 and labels.is_contiguous() and scales.is_contiguous()
        return launch_cross_entropy(scores, labels, scales, loss)
    compiled = load_library("cross_entropy") if scores.device.type == "cpu" and scores.dtype in C_SUFFIX else None
    if compiled is None:
        return cross_entropy_fallback_(scores, labels, scales, loss, probability_gradients)
    n, num_classes, pixels = scores.shape
    assert scores.stride(2) == 1 and labels.is_contiguous() and scales.is_contiguous()
    largest = int(torch.where(labels == IGNORE_INDEX, 0, labels).max())
    if largest >= num_classes:  # the kernel would read out of bounds
        raise IndexError(f"label {largest} is out of range for {num_classes} classes")
    function = getattr(compiled, f"cross_entropy_{C_SUFFIX[scores.dtype]}")
    function.restype = None
    terms = _Loss(
        num_classes, loss.own.data_ptr(), loss.even.data_ptr(), float(loss.even.sum()) if loss.smooth else 0.0
    )
    losses = (ctypes.c_double * count_parts(scores.numel()))()
    function(
        ctypes.byref(terms),
        ctypes.c_void_p(scores.data_ptr()),
        *map(ctypes.c_long, (n, scores.stride(0), scores.stride(1), pixels)),
        ctypes.c_void_p(labels.data_ptr()),
        ctypes.c_void_p(scales.data_ptr()),
        None if probability_gradients is None else class_pointers(probability_gradients, num_classes, (n, pixels)),
        ctypes.c_long(len(losses)),
        losses,
    )
    return torch.tensor(sum(losses), dtype=torch.float32)


class _Loss(ctypes.Structure):
    """The struct of the same name in cross_entropy.c."""

    _fields_ = (
        ("classes", ctypes.c_long),
        ("own", ctypes.c_void_p),
        ("even", ctypes.c_void_p),
        ("even_sum", ctypes.c_float),
    )


def cross_entropy_fallback_(
    scores: Tensor,
    labels: Tensor,
    scales: Tensor,
    loss: PixelLoss,
    probability_gradients: Mapping[int, Tensor] | None = None,
) -> Tensor:
    """Compute `cross_entropy_` by PyTorch operators, on any device.

    Args:
        scores: [n, num_classes, pixels]; overwritten by their gradient.
        labels: uint8 [n, pixels]: classes, or 255 for ignored.
        scales: float32 [n], the factor on the loss of each row.
        loss: the loss of one pixel.
        probability_gradients: as for `cross_entropy_`.

    Returns:
        The sum of the cross entropies, a float32 scalar.
    """
    logarithms = scores.float().log_softmax(1)
    labeled = labels != IGNORE_INDEX
    index = torch.where(labeled, labels, 0).long()
    own = (loss.own[index] * labeled).unsqueeze(1)
    losses = -own * logarithms.gather(1, index.unsqueeze(1))
    gradient = logarithms.exp()
    if loss.smooth:
        even = loss.even[:, None] * labeled.unsqueeze(1)
        losses = losses - (even * logarithms).sum(1, keepdim=True)
        gradient = gradient * (own + even.sum(1, keepdim=True)) - even
    else:
        gradient *= own
    gradient.scatter_add_(1, index.unsqueeze(1), -own)
    gradient.mul_(scales[:, None, None])
    if probability_gradients is not None:
        probabilities, slopes = logarithms.exp(), torch.zeros_like(gradient)
        for number, values in probability_gradients.items():
            slopes[:, number] = values
        gradient += probabilities * (slopes - (probabilities * slopes).sum(1, keepdim=True))
    scores.copy_(gradient)
    return (losses.sum((1, 2)) * scales).sum()
