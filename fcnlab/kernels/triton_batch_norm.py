"""Batch norm with its activation by Triton kernels, for channels-last tensors on CUDA.

PyTorch's kernels for channels-last batch norm in half precision reach a fraction of the memory bandwidth, and with
running statistics (frozen batch norm) their backward pass changes the memory format. These read and write each tensor
once per pass, apply the activation in the same pass, and sum in a fixed order, so that results are reproducible.

Import this module only where `is_triton_available` is true.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
from torch import Tensor

from fcnlab.kernels import triton_batch_norm_kernels as kernels

TILE = 2048
"""Elements that a program processes at a time."""

MAX_PROGRAMS = 512
"""Programs that share a reduction: enough to fill the largest GPUs, with few partial sums to combine."""

ACTIVATIONS = {"none": 0, "relu": 1, "relu6": 2}
"""Numbers of the activations in the kernels."""


class _Geometry:
    """Division of a channels-last tensor [B, C, H, W] among programs, as B*H*W rows of C channels."""

    def __init__(self, x: Tensor) -> None:
        self.channels = x.shape[1]
        self.rows = x.numel() // self.channels
        self.block_channels = min(64, triton.next_power_of_2(self.channels))
        self.block_rows = TILE // self.block_channels
        self.channel_blocks = triton.cdiv(self.channels, self.block_channels)
        self.row_blocks = triton.cdiv(self.rows, self.block_rows)
        wanted = max(1, min(self.row_blocks, MAX_PROGRAMS // self.channel_blocks))
        self.rows_each = triton.cdiv(self.row_blocks, wanted) * self.block_rows
        self.parts = triton.cdiv(self.rows, self.rows_each)

    @property
    def blocks(self) -> dict[str, int]:
        return {"block_rows": self.block_rows, "block_channels": self.block_channels}


_COMBINED = {"block_parts": 128, "block_channels": 8}
"""Block size of the kernels that combine partial sums."""


class BatchNormActivation(torch.autograd.Function):
    """Batch norm and activation of a channels-last tensor x [B, C, H, W] in float32, bfloat16 or float16.

    Arguments: x; weight, bias, running_mean and running_var, float32 [C]; training, true if x is normalized by its own
    statistics and not by the running ones; momentum; epsilon; one of `ACTIVATIONS`. Statistics and arithmetic are
    float32.
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
        g, kind = _Geometry(x), ACTIVATIONS[activation]
        y = torch.empty_like(x)
        with torch.cuda.device_of(x):
            if training:
                mean, spread = torch.empty_like(running_mean), torch.empty_like(running_var)
                partial = torch.empty(g.parts, 2, g.channels, device=x.device)
                kernels.sum_input[(g.parts, g.channel_blocks)](x, partial, g.rows, g.channels, g.rows_each, **g.blocks)
                kernels.compute_statistics[(triton.cdiv(g.channels, _COMBINED["block_channels"]),)](
                    x,
                    partial,
                    mean,
                    spread,
                    running_mean,
                    running_var,
                    g.rows,
                    g.channels,
                    g.parts,
                    momentum,
                    epsilon,
                    **_COMBINED,
                )
            else:
                mean, spread = running_mean, running_var
            kernels.normalize[(g.row_blocks, g.channel_blocks)](
                x,
                y,
                mean,
                spread,
                weight,
                bias,
                g.rows,
                g.channels,
                epsilon,
                running=not training,
                activation=kind,
                **g.blocks,
            )
        sums = training or ctx.needs_input_grad[1] or ctx.needs_input_grad[2]
        # In training the gradient of the activation is computed from x, otherwise from y, so that x need not be stored
        # if nothing else needs it; y is stored by the next layer anyway.
        ctx.save_for_backward(x if sums else None, y if kind and not training else None, weight, bias, mean, spread)
        ctx.settings = training, epsilon, kind, sums
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, y, weight, bias, mean, spread = ctx.saved_tensors
        training, epsilon, kind, sums = ctx.settings
        gradient = gradients[0].contiguous(memory_format=torch.channels_last)
        g = _Geometry(gradient)
        bias_grad = weight_grad = x_grad = None
        with torch.cuda.device_of(gradient):
            if sums:
                bias_grad, weight_grad = torch.empty_like(mean), torch.empty_like(mean)
                partial = torch.empty(g.parts, 2, g.channels, device=gradient.device)
                kernels.sum_gradient[(g.parts, g.channel_blocks)](
                    gradient,
                    x,
                    y,
                    mean,
                    spread,
                    weight,
                    bias,
                    partial,
                    g.rows,
                    g.channels,
                    g.rows_each,
                    epsilon,
                    running=not training,
                    activation=kind,
                    **g.blocks,
                )
                kernels.combine_sums[(triton.cdiv(g.channels, _COMBINED["block_channels"]),)](
                    partial, bias_grad, weight_grad, g.channels, g.parts, **_COMBINED
                )
            if ctx.needs_input_grad[0]:
                x_grad = torch.empty_like(gradient)
                kernels.compute_input_gradient[(g.row_blocks, g.channel_blocks)](
                    gradient,
                    x,
                    y,
                    x_grad,
                    mean,
                    spread,
                    weight,
                    bias,
                    bias_grad,
                    weight_grad,
                    g.rows,
                    g.channels,
                    epsilon,
                    running=not training,
                    activation=kind,
                    **g.blocks,
                )
        return x_grad, weight_grad, bias_grad, None, None, None, None, None, None
