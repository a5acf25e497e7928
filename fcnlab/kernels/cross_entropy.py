"""Cross entropy of scores with its gradient written in place: in C, in Triton, and in torch's operators."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

import torch
from torch import Tensor

from fcnlab.constants import IGNORE_INDEX
from fcnlab.kernels.build import load_library
from fcnlab.kernels.switch import is_triton_available

_SUFFIX = {torch.float32: "fp32", torch.bfloat16: "bf16"}
_TRITON = (torch.float32, torch.bfloat16, torch.float16)
_TRITON_CLASSES = 256
"""With more classes, the scores of a block of pixels no longer fit the registers of one Triton program."""


@dataclass(frozen=True)
class PixelLoss:
    """What a pixel of class y loses: ``own[y] (lse - z[y]) + sum_c even[c] (lse - z[c])``, lse = log sum exp z.

    So class weights w with label smoothing ε, as `torch.nn.functional.cross_entropy` has them, are own = (1 - ε) w and
    even = ε w / C. Both are float32 [C], on the device of the scores.
    """

    own: Tensor
    even: Tensor
    smooth: bool

    @classmethod
    def from_class_weights(
        cls, classes: int, weights: Tensor | None, smoothing: float, device: torch.device
    ) -> PixelLoss:
        """The loss of a pixel by class weights [C], or None for ones, and label smoothing."""
        weights = torch.ones(classes, device=device) if weights is None else weights.to(device, torch.float32)
        return cls((1 - smoothing) * weights, smoothing / classes * weights, smoothing > 0)


def cross_entropy_(scores: Tensor, labels: Tensor, scales: Tensor, loss: PixelLoss) -> Tensor:
    """Replace scores by the gradient of their summed loss, and return the loss, float32.

    Softmax, loss and gradient are computed in float32; the gradient is rounded to the dtype of the scores. On the CPU
    the work is done in C, on CUDA in Triton; where neither is available, `plain` does it.

    Args:
        scores: [n, C, pixels], float32, bfloat16 or float16, contiguous along pixels, with any other strides.
        labels: uint8 [n, pixels]: classes, or 255 for an ignored pixel, which has no gradient.
        scales: float32 [n], the factor of each row's loss.
        loss: the loss of one pixel.

    Returns:
        The loss, a float32 scalar on the device of the scores. In Triton a label that is neither a class nor 255 makes
        it nan: raising an error would need a synchronisation in each step, and a device assert would end the whole
        process. Training then stops at the end of the epoch, because its loss is not finite.

    Raises:
        IndexError: a label is neither a class nor 255, on the CPU.
    """
    if scores.dtype in _TRITON and scores.shape[1] <= _TRITON_CLASSES and is_triton_available(scores.device):
        from fcnlab.kernels.triton_cross_entropy import launch_cross_entropy

        assert scores.stride(2) == 1 and labels.is_contiguous() and scales.is_contiguous()
        return launch_cross_entropy(scores, labels, scales, loss)
    compiled = load_library("cross_entropy") if scores.device.type == "cpu" and scores.dtype in _SUFFIX else None
    if compiled is None:
        return cross_entropy_fallback_(scores, labels, scales, loss)
    n, classes, pixels = scores.shape
    assert scores.stride(2) == 1 and labels.is_contiguous() and scales.is_contiguous()
    greatest = int(torch.where(labels == IGNORE_INDEX, 0, labels).max())
    if greatest >= classes:  # the kernel would read beyond the scores
        raise IndexError(f"label {greatest} is none of {classes} classes")
    function = getattr(compiled, f"cross_entropy_{_SUFFIX[scores.dtype]}")
    function.restype = ctypes.c_double
    terms = _Loss(classes, loss.own.data_ptr(), loss.even.data_ptr(), float(loss.even.sum()) if loss.smooth else 0.0)
    sizes = (n, scores.stride(0), scores.stride(1), pixels)
    value = function(
        ctypes.byref(terms),
        ctypes.c_void_p(scores.data_ptr()),
        *map(ctypes.c_long, sizes),
        ctypes.c_void_p(labels.data_ptr()),
        ctypes.c_void_p(scales.data_ptr()),
    )
    return torch.tensor(value, dtype=torch.float32)


class _Loss(ctypes.Structure):
    """As in cross_entropy.c."""

    _fields_ = (
        ("classes", ctypes.c_long),
        ("own", ctypes.c_void_p),
        ("even", ctypes.c_void_p),
        ("even_sum", ctypes.c_float),
    )


def cross_entropy_fallback_(scores: Tensor, labels: Tensor, scales: Tensor, loss: PixelLoss) -> Tensor:
    """Do the same as `cross_entropy_` with torch's operators, on any device."""
    logarithms = scores.float().log_softmax(1)
    counts = labels != IGNORE_INDEX
    index = torch.where(counts, labels, 0).long()
    own = (loss.own[index] * counts).unsqueeze(1)
    lost = -own * logarithms.gather(1, index.unsqueeze(1))
    gradient = logarithms.exp()
    if loss.smooth:
        even = loss.even[:, None] * counts.unsqueeze(1)
        lost = lost - (even * logarithms).sum(1, keepdim=True)
        gradient = gradient * (own + even.sum(1, keepdim=True)) - even
    else:
        gradient *= own
    gradient.scatter_add_(1, index.unsqueeze(1), -own)
    scores.copy_(gradient.mul_(scales[:, None, None]))
    return (lost.sum((1, 2)) * scales).sum()
