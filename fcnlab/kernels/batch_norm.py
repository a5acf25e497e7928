"""Batch norm with its activation in C, for channels-last tensors on the CPU.

PyTorch's operators read and write a tensor several times for a batch norm, its activation and their gradients, and copy
the input of an activation that works in place. These read and write each tensor once per pass and keep no copy.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fcnlab.kernels.build import C_SUFFIX, load_library
from fcnlab.kernels.parallel import count_parts

_LANES = 16
"""Elements of a vector, as in vectors.h."""

_RANGES = {"none": (-math.inf, math.inf), "relu": (0.0, math.inf), "relu6": (0.0, 6.0)}
"""Least and greatest value of the activations."""


def is_available(device: torch.device) -> bool:
    """Return True if the kernels, which are for float32 and bfloat16, run on a device: the CPU, with a C compiler.

    Args:
        device: device of the tensors.
    """
    return device.type == "cpu" and load_library("batch_norm") is not None


class BatchNormActivation(torch.autograd.Function):
    """Batch norm and activation of a channels-last tensor x [B, C, H, W] in float32 or bfloat16.

    Arguments: x; weight, bias, running_mean and running_var, float32 [C]; training, true if x is normalized by its own
    statistics and not by the running ones; momentum; epsilon; `none`, `relu` or `relu6`. The arithmetic is float32, and
    that of statistics and sums float64.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        running_mean: Tensor,
        running_var: Tensor,
        training: bool,
        momentum: float,
        epsilon: float,
        activation: str,
    ) -> Tensor:
        rows, bounds = x.numel() // x.shape[1], _RANGES[activation]
        if training:
            mean, variance = _compute_statistics(x)
            running_mean.lerp_(mean.float(), momentum)
            running_var.lerp_((variance * rows / (rows - 1)).float(), momentum)
        else:
            mean, variance = running_mean.double(), running_var.double()
        inverse = (variance + epsilon).rsqrt()
        scale = weight * inverse
        shift = bias - mean * scale
        y = torch.empty_like(x)
        _run("normalize", [x, y], [scale, shift], bounds)
        sums = training or ctx.needs_input_grad[1] or ctx.needs_input_grad[2]
        # The gradient of the activation can be computed from y, which the next layer stores anyway, so that x need not
        # be stored if nothing else needs it. Without an activation, y may be changed in place.
        saved = x if sums else None if activation == "none" else y
        ctx.save_for_backward(saved, mean, inverse, scale, shift)
        ctx.settings = training, bounds, sums
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        saved, mean, inverse, scale, shift = ctx.saved_tensors
        training, bounds, sums = ctx.settings
        gradient = gradients[0].contiguous(memory_format=torch.channels_last)
        weight_grad = bias_grad = x_grad = None
        offset = share = torch.zeros_like(mean)  # of the gradients of mean and variance
        if sums:
            total, product = _sum("sum_gradient", [gradient, saved], [scale, shift, mean], bounds)
            bias_grad, weight_grad = total.float(), (product * inverse).float()
            if training:
                rows = gradient.numel() // gradient.shape[1]
                offset, share = scale * total / rows, scale * inverse**2 * product / rows
        if ctx.needs_input_grad[0]:
            x_grad = torch.empty_like(gradient)
            if sums:
                _run("input_gradient", [gradient, saved, x_grad], [scale, shift, mean, offset, share], bounds)
            else:
                y = (
                    gradient if saved is None else saved
                )  # the kernel needs one; without bounds, its values do not matter
                _run("scale_gradient", [gradient, y, x_grad], [scale], bounds)
        return x_grad, weight_grad, bias_grad, None, None, None, None, None, None


def _compute_statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and variance of the channels, float64 [C]."""
    rows = x.numel() // x.shape[1]
    # Differences to any pixel are summed, because squares of large values with a small variance would cancel.
    pixel = x[0, :, 0, 0].double()
    total, squares = _sum("sum_input", [x], [pixel])
    mean = total / rows
    return pixel + mean, (squares / rows - mean**2).clamp(min=0)


def _sum(name: str, images: Sequence[Tensor], channels: Sequence[Tensor], bounds: Sequence[float] = ()) -> Tensor:
    """Return two sums over all pixels by channel, float64 [2, C]."""
    x = images[0]
    parts, repeats = count_parts(x.numel()), _count_repeats(x)
    some = torch.zeros(parts, 2, repeats, x.shape[1])
    sums = torch.zeros(parts, 2, repeats, x.shape[1], dtype=torch.float64)
    _run(name, images, channels, bounds, some, sums)
    return sums.sum((0, 2))


def _run(
    name: str, images: Sequence[Tensor], channels: Sequence[Tensor], bounds: Sequence[float], *results: Tensor
) -> None:
    """Run a kernel on images of one shape and dtype, channels-last, with values [C] and with results [parts, ...]."""
    library = load_library("batch_norm")
    assert library is not None, "is_available must be true"
    x = images[0]
    function = getattr(library, f"{name}_{C_SUFFIX[x.dtype]}")
    function.restype = None
    repeats = _count_repeats(x)
    period = repeats * x.shape[1]
    periodic = [values.float().repeat(repeats) for values in channels]
    function(
        *map(ctypes.c_long, (count_parts(x.numel()), x.numel(), period)),
        *(ctypes.c_void_p(image.data_ptr()) for image in images),
        *(ctypes.c_void_p(values.data_ptr()) for values in periodic),
        *map(ctypes.c_float, bounds),
        *(ctypes.c_void_p(result.data_ptr()) for result in results),
    )


def _count_repeats(x: Tensor) -> int:
    """Return the number of pixels after which the channels are at the same lane of a vector again."""
    return _LANES // math.gcd(x.shape[1], _LANES)
