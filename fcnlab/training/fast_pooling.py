"""Maximum pooling for training on CUDA: faster than PyTorch's, with optionally deterministic gradients."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fcnlab.kernels.switch import is_triton_available


def replace_max_pooling(model: nn.Module, *, deterministic: bool) -> None:
    """Replace each `torch.nn.MaxPool2d` of a model by `MaxPool2d`, in place.

    Args:
        model: the network.
        deterministic: gradients on CUDA must be reproducible bit for bit.

    Raises:
        ValueError: gradients must be deterministic, and a pooling is dilated or returns indices.
    """
    for module in list(model.modules()):
        for name, child in module.named_children():
            if type(child) is nn.MaxPool2d:
                if _pair(child.dilation) == (1, 1) and not child.return_indices:
                    setattr(module, name, MaxPool2d(child, deterministic=deterministic))
                elif deterministic:
                    raise ValueError("deterministic maximum pooling supports neither dilation nor returned indices")


class MaxPool2d(nn.MaxPool2d):
    """Maximum pooling [B, C, H, W] -> [B, C, h, w] with the outputs and gradients of a `torch.nn.MaxPool2d`.

    A Triton kernel pools channels-last images on CUDA, faster than PyTorch's and with deterministic gradients; other
    tensors are pooled by PyTorch. PyTorch's CUDA kernel adds the gradients of overlapping windows with atomics, in an
    order that changes from run to run, so `deterministic` replaces that sum. Exported programs contain PyTorch's
    operator.
    """

    def __init__(self, pool: nn.MaxPool2d, *, deterministic: bool) -> None:
        """
        Args:
            pool: the pooling to replace, without dilation and returned indices.
            deterministic: gradients must be reproducible bit for bit.
        """
        super().__init__(pool.kernel_size, pool.stride, pool.padding, ceil_mode=pool.ceil_mode)
        self.deterministic = deterministic

    def forward(self, input: Tensor) -> Tensor:
        if torch.compiler.is_exporting():
            return super().forward(input)
        kernel, stride, padding = map(_pair, (self.kernel_size, self.stride, self.padding))
        # torch.compile generates its own kernels.
        if not torch.compiler.is_compiling() and is_triton_available(input.device):
            from fcnlab.kernels import triton_max_pool  # imports triton, an optional dependency

            if triton_max_pool.supports_pooling(input, kernel, stride, padding):
                return triton_max_pool.max_pool2d(input, kernel, stride, padding, self.ceil_mode)
        if self.deterministic:
            pooled: Tensor = _DeterministicMaxPool.apply(input, kernel, stride, padding, self.ceil_mode)
            return pooled
        return super().forward(input)


class _DeterministicMaxPool(torch.autograd.Function):
    """Add gradients one window position at a time: k x k additions, none of which writes an element twice."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, kernel: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int], ceil: bool
    ) -> Tensor:
        pooled, indices = F.max_pool2d(x, kernel, stride, padding, ceil_mode=ceil, return_indices=True)
        ctx.save_for_backward(indices)
        ctx.geometry = kernel, stride, padding, x.shape[-2:]
        return pooled

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (indices,) = ctx.saved_tensors
        (gradient,) = gradients
        kernel, stride, padding, (height, width) = ctx.geometry
        rows, columns = gradient.shape[-2:]
        # Large enough for all windows; with `ceil_mode` they can extend beyond the padding.
        reach = [(n - 1) * s + k for n, s, k in zip((rows, columns), stride, kernel, strict=True)]
        total = gradient.new_zeros(
            *gradient.shape[:2], max(reach[0], height + padding[0]), max(reach[1], width + padding[1])
        )
        top = torch.arange(rows, device=gradient.device)[:, None] * stride[0] - padding[0]
        left = torch.arange(columns, device=gradient.device) * stride[1] - padding[1]
        for i in range(kernel[0]):
            for j in range(kernel[1]):
                chosen = indices == (top + i) * width + (left + j)
                # A position in the padding can have the same index as a pixel, but is never the maximum.
                inside = (top + i >= 0) & (top + i < height) & (left + j >= 0) & (left + j < width)
                target = total[..., i : i + rows * stride[0] : stride[0], j : j + columns * stride[1] : stride[1]]
                target += gradient * (chosen & inside)
        image = total[..., padding[0] : padding[0] + height, padding[1] : padding[1] + width]
        return image, None, None, None, None


def _pair(value: int | tuple[int, ...]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[1])
