"""Batch norms of a network that trains on CUDA, replaced by Triton kernels that apply the activation as well."""

from __future__ import annotations

from typing import Any

import torch
from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor, nn

from fcnlab.kernels.switch import is_triton_available


def replace_batch_norm(model: nn.Module) -> None:
    """Let the batch norms of a model run by Triton kernels while it trains, in place.

    Parameters, buffers and their names stay as they are. Where a ReLU works in place on the output of a batch norm, as
    in ResNets, both are computed in one pass. Only training is affected: without gradients, on the CPU, in another
    layout than channels-last and where Triton is switched off, PyTorch's operators run as before.

    Args:
        model: a network on the device that trains it.
    """
    activated = _activated_norms(model)
    modules: list[Any] = list(model.modules())
    for module in modules:
        if type(module) is nn.BatchNorm2d and _complete(module):
            relu = activated.get(module)
            _become(module, FastBatchNorm2d, "none" if relu is None else "relu")
            if relu is not None:
                relu.__class__ = _Applied
        elif type(module) is BatchNormAct2d and _complete(module) and type(module.drop) is nn.Identity:
            activation = _ACTIVATIONS.get(type(module.act))
            if activation is not None:
                _become(module, FastBatchNormAct2d, activation)


def _become(module: Any, kind: type[nn.Module], activation: str) -> None:
    """Change the class of a module, which keeps its place in the network, its parameters, its buffers and its hooks."""
    module.__class__ = kind
    module.activation = activation


_ACTIVATIONS: dict[type[nn.Module], str] = {nn.Identity: "none", nn.ReLU: "relu", nn.ReLU6: "relu6"}


def runs_on_triton(x: Tensor) -> bool:
    """Return whether batch norm of x, and the ReLU behind it, run by Triton."""
    return (
        torch.is_grad_enabled()
        and x.dim() == 4
        and x.dtype in (torch.float32, torch.bfloat16, torch.float16)
        and x.is_contiguous(memory_format=torch.channels_last)
        and x.numel() > 0
        and is_triton_available(x.device)
    )


class FastBatchNorm2d(nn.BatchNorm2d):
    """A batch norm that runs by Triton where `runs_on_triton`, with the ReLU behind it if that is its `activation`."""

    activation: str = "none"

    def forward(self, x: Tensor) -> Tensor:
        """Normalize x [B, C, H, W]."""
        return _normalized(self, x) if runs_on_triton(x) else super().forward(x)


class FastBatchNormAct2d(BatchNormAct2d):  # type: ignore[misc]
    """timm's batch norm with an activation, which runs by Triton where `runs_on_triton`."""

    activation: str = "none"

    def forward(self, x: Tensor) -> Tensor:
        """Normalize x [B, C, H, W] and apply the activation."""
        return _normalized(self, x) if runs_on_triton(x) else super().forward(x)


class _Applied(nn.ReLU):
    """The ReLU behind a `FastBatchNorm2d`: where that one is fast, it has applied the ReLU already."""

    def forward(self, x: Tensor) -> Tensor:
        return x if runs_on_triton(x) else super().forward(x)


def _normalized(norm: Any, x: Tensor) -> Tensor:
    from fcnlab.kernels.triton_batch_norm import BatchNormActivation

    if norm.training:
        if x.numel() == x.shape[1]:
            raise ValueError(f"Expected more than 1 value per channel when training, got input size {tuple(x.shape)}")
        norm.num_batches_tracked.add_(1)
    y: Tensor = BatchNormActivation.apply(
        x,
        norm.weight,
        norm.bias,
        norm.running_mean,
        norm.running_var,
        norm.training,
        norm.momentum,
        norm.eps,
        norm.activation,
    )
    return y


def _complete(norm: nn.BatchNorm2d) -> bool:
    """Return whether a batch norm has all that the kernels read: scale, shift, running statistics and a momentum."""
    return bool(norm.affine and norm.track_running_stats and norm.momentum is not None)


@torch.no_grad()
def _activated_norms(model: nn.Module) -> dict[nn.Module, nn.Module]:
    """Find each batch norm whose output a ReLU works on in place, by sending a small image through the model.

    Nothing has changed the output in between, and since the ReLU writes over it, whatever reads it later sees the
    activated one, with or without fusion.
    """
    outputs: dict[int, tuple[nn.Module, Tensor, int]] = {}
    found: dict[nn.Module, nn.Module] = {}

    def after_norm(module: nn.Module, _: Any, output: Tensor) -> None:
        outputs[id(output)] = module, output, output._version  # the tensor is kept, so that its id stays its own

    def before_relu(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        norm, _, version = outputs.get(id(inputs[0]), (None, None, None))
        if norm is not None and inputs[0]._version == version:  # else something was added to it in place
            found[norm] = module

    hooks = []
    for module in model.modules():
        if type(module) is nn.BatchNorm2d:
            hooks.append(module.register_forward_hook(after_norm))
        elif type(module) is nn.ReLU and module.inplace:
            hooks.append(module.register_forward_pre_hook(before_relu))
    training, device = model.training, next(model.parameters()).device
    try:
        if hooks:
            model.eval()(torch.zeros(1, 3, 64, 64, device=device))
    finally:
        model.train(training)
        for hook in hooks:
            hook.remove()
    return found
