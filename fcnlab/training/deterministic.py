"""Replacements of layers whose backward pass on CUDA adds up in an order that changes from run to run."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def make_deterministic(model: nn.Module) -> None:
    """Replace every maximum pooling of a model by one whose gradient repeats bit for bit on CUDA, in place."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            if type(child) is nn.MaxPool2d:
                setattr(module, name, DeterministicMaxPool2d(child))


class DeterministicMaxPool2d(nn.Module):
    """Maximum pooling [B, C, H, W] -> [B, C, h, w] with the outputs and gradients of a `torch.nn.MaxPool2d`.

    Where windows overlap, PyTorch's CUDA kernel adds gradients with atomics. Here they are added window position by
    window position: k x k additions, none of which writes an element twice.
    """

    def __init__(self, pool: nn.MaxPool2d) -> None:
        """
        Args:
            pool: the pooling to replace.

        Raises:
            ValueError: it is dilated.
        """
        super().__init__()
        if _pair(pool.dilation) != (1, 1):
            raise ValueError("deterministic maximum pooling does not support dilation")
        self.kernel_size, self.stride, self.padding = map(_pair, (pool.kernel_size, pool.stride, pool.padding))
        self.ceil_mode = pool.ceil_mode

    def forward(self, x: Tensor) -> Tensor:
        """Return the maximum of each window."""
        pooled: Tensor = _MaxPool.apply(x, self.kernel_size, self.stride, self.padding, self.ceil_mode)
        return pooled


class _MaxPool(torch.autograd.Function):
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
        # Large enough for every window, also for those that reach beyond the padding with `ceil_mode`.
        reach = [(n - 1) * s + k for n, s, k in zip((rows, columns), stride, kernel, strict=True)]
        total = gradient.new_zeros(
            *gradient.shape[:2], max(reach[0], height + padding[0]), max(reach[1], width + padding[1])
        )
        top = torch.arange(rows, device=gradient.device)[:, None] * stride[0] - padding[0]
        left = torch.arange(columns, device=gradient.device) * stride[1] - padding[1]
        for i in range(kernel[0]):
            for j in range(kernel[1]):
                chosen = indices == (top + i) * width + (left + j)
                # A position in the padding can have the number of another pixel, but is never the maximum.
                inside = (top + i >= 0) & (top + i < height) & (left + j >= 0) & (left + j < width)
                part = total[..., i : i + rows * stride[0] : stride[0], j : j + columns * stride[1] : stride[1]]
                part += gradient * (chosen & inside)
        image = total[..., padding[0] : padding[0] + height, padding[1] : padding[1] + width]
        return image, None, None, None, None


def _pair(value: int | tuple[int, ...]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[1])
