"""Checks of the Triton batch norm; run by `test_triton.py` in another process."""

from __future__ import annotations

import copy
from itertools import product
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

from fcnlab.kernels.switch import is_triton_available
from fcnlab.training.fast_layers import FastBatchNorm2d, FastBatchNormAct2d, replace_batch_norm
from tests.kernels.networks import assert_equal_steps, create_networks
from tests.kernels.on_triton import COMPILED, DEVICE, INTERPRETED

SHAPES = [(2, 5, 4, 3), (1, 16, 9, 7), (3, 70, 5, 4)]
"""Shapes with few channels, with a power of two, and with more than one block of channels."""

CASES = list(product(SHAPES, ["none", "relu", "relu6"], ["train", "eval", "frozen"], [torch.float32, torch.bfloat16]))
"""Shapes, activations, modes and dtypes: all combinations, or a Latin square of the first three if compiled."""
if COMPILED:
    CASES = [
        (shape, activation, mode, dtype)
        for shape, activation, mode, dtype in CASES
        if (SHAPES.index(shape) + ["none", "relu", "relu6"].index(activation)) % 3
        == ["train", "eval", "frozen"].index(mode)
        and (dtype == torch.float32) == (shape != SHAPES[1])
    ]


class Block(nn.Module):
    """A batch norm and an in-place ReLU, as in ResNets."""

    def __init__(self, channels: int, activation: str) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(channels)
        self.act1 = nn.ReLU(inplace=True) if activation == "relu" else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.act1(self.bn1(x))
        return y


def normalizers(channels: int, activation: str) -> tuple[Any, Any]:
    """Return a module in float64 as the reference, and the same module by Triton in float32."""
    torch.manual_seed(0)
    if activation == "relu6":
        plain: Any = timm.layers.BatchNormAct2d(channels, act_layer=nn.ReLU6)
        norm = plain
    else:
        plain = Block(channels, activation)
        norm = plain.bn1
    with torch.no_grad():
        norm.weight.uniform_(0.5, 2)
        norm.bias.uniform_(-1, 3)
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
    fast = copy.deepcopy(plain)
    if activation == "relu6":
        replace_batch_norm(fast)
        assert type(fast) is FastBatchNormAct2d
    else:
        fast.bn1.__class__ = FastBatchNorm2d
        fast.bn1.activation = activation
        fast.act1 = nn.Identity()
    return plain.double(), fast.to(DEVICE)


def test_the_kernel_is_available() -> None:
    assert is_triton_available(DEVICE)


@pytest.mark.parametrize(("shape", "activation", "mode", "dtype"), CASES, ids=str)
def test_outputs_gradients_and_statistics_equal_those_of_float64(
    shape: tuple[int, int, int, int], activation: str, mode: str, dtype: torch.dtype
) -> None:
    plain, fast = normalizers(shape[1], activation)
    for module in (plain, fast):
        module.train(mode == "train")
        module.requires_grad_(mode != "frozen")
    generator = torch.Generator().manual_seed(1)
    x = (3 + 2 * torch.randn(shape, generator=generator)).to(dtype).to(memory_format=torch.channels_last)
    weights = torch.randn(shape, generator=generator).to(dtype)
    reference, ours = x.double().requires_grad_(), x.to(DEVICE).requires_grad_()
    expected = plain(1 * reference)  # timm's activation works in place
    (expected * weights.double()).sum().backward()
    found = fast(ours)
    found.backward(weights.to(DEVICE).contiguous(memory_format=torch.channels_last))
    assert found.dtype == dtype
    assert found.is_contiguous(memory_format=torch.channels_last)
    tolerance = {"rtol": 1e-4, "atol": 1e-4} if dtype == torch.float32 else {"rtol": 2e-2, "atol": 2e-2}
    torch.testing.assert_close(found.cpu().double(), expected, **tolerance)
    assert reference.grad is not None and ours.grad is not None
    close = torch.isclose(ours.grad.cpu().double(), reference.grad, **tolerance)
    assert close.float().mean() > (0.999 if dtype == torch.float32 else 0.97)  # rounding moves values across a bend
    of_fast, of_plain = ({n: p.grad for n, p in module.named_parameters()} for module in (fast, plain))
    assert of_fast.keys() == of_plain.keys()
    for name, expected_gradient in of_plain.items():
        if mode == "frozen":
            assert of_fast[name] is None
        else:
            scale = expected_gradient.abs().max().clamp(min=1)
            assert (of_fast[name].cpu() - expected_gradient).abs().max() / scale < (
                1e-4 if dtype == torch.float32 else 5e-2
            )
    for (name, buffer), expected_buffer in zip(fast.named_buffers(), plain.buffers(), strict=True):
        torch.testing.assert_close(buffer.cpu().double(), expected_buffer.double(), rtol=1e-4, atol=1e-4, msg=name)


@pytest.mark.parametrize(
    "backbone",
    [
        "test_resnet",
        pytest.param("mobilenetv2_035", marks=pytest.mark.skipif(INTERPRETED, reason="the interpreter is slow")),
    ],
)
def test_gradients_of_a_network_equal_those_without_the_kernel(backbone: str) -> None:
    plain, fast = create_networks(backbone, DEVICE)
    images = torch.randn(2, 3, 64, 64).contiguous(memory_format=torch.channels_last).to(DEVICE)
    assert_equal_steps(fast, plain, images, training=True)
    with torch.no_grad():
        assert torch.equal(fast.eval()(images), fast.eval()(images))
        torch.testing.assert_close(fast(images), plain.eval()(images), rtol=1e-3, atol=1e-3)
