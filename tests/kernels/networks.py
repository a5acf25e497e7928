"""Networks whose batch norms are kernels, and the comparison of a training step with that of PyTorch's operators."""

from __future__ import annotations

import copy
from typing import Any

import timm
import torch
from torch import Tensor, nn

from fcnlab.training.fast_layers import FastBatchNorm2d, FastBatchNormAct2d, replace_batch_norm


def create_networks(name: str, device: torch.device) -> tuple[Any, Any]:
    """Return a network of timm, and a copy all of whose batch norms are replaced."""
    torch.manual_seed(0)
    plain = timm.create_model(name, num_classes=3).to(memory_format=torch.channels_last).to(device)
    fast = copy.deepcopy(plain)
    replace_batch_norm(fast)
    replaced = [module for module in fast.modules() if isinstance(module, FastBatchNorm2d | FastBatchNormAct2d)]
    norms = [module for module in plain.modules() if isinstance(module, nn.BatchNorm2d)]
    assert len(replaced) == len(norms) > 0
    if name == "test_resnet":
        assert any(module.activation == "relu" for module in replaced)
    assert fast.state_dict().keys() == plain.state_dict().keys()
    return plain, fast


def assert_equal_steps(fast: nn.Module, plain: nn.Module, images: Tensor, *, training: bool) -> None:
    """Check that gradients and statistics of two networks are equal up to rounding after a step."""
    for model in (plain, fast):
        model.train(training)
        model(images).square().sum().backward()
    gradients = [parameter.grad for parameter in plain.parameters()]
    largest = max(float(gradient.norm()) for gradient in gradients if gradient is not None)
    for (path, ours), theirs in zip(fast.named_parameters(), gradients, strict=True):
        assert ours.grad is not None and theirs is not None
        # Rounding lets a few values pass the bends of the activation, whose gradients then differ: by up to 1 % in
        # PyTorch's own float32 compared with float64. Single layers are compared with float64 elsewhere.
        assert (ours.grad - theirs).norm() <= 3e-2 * theirs.norm() + 6e-3 * largest, path
    for found, wanted in zip(fast.buffers(), plain.buffers(), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-4)
