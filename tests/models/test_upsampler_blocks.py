"""The faster blockwise upsampling on the CPU compared with torch's transposed convolution."""

from __future__ import annotations

from typing import Literal

import pytest
import torch
from torch import nn

from fcnlab.models.upsampler import TransposedUpsampler


def both(up: TransposedUpsampler, scores: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    with torch.inference_mode():
        return up(scores), nn.ConvTranspose2d.forward(up, scores)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("factor", "size"), [(8, (5, 7)), (16, (3, 2)), (32, (1, 1)), (32, (2, 3))])
def test_blockwise_scores_equal_the_transposed_convolution(
    factor: int, size: tuple[int, int], bias: bool, layout: torch.memory_format
) -> None:
    torch.manual_seed(0)
    up = TransposedUpsampler(6, factor, init="kaiming", bias=bias).eval().to(memory_format=layout)
    scores = torch.randn(3, 6, *size).contiguous(memory_format=layout)
    found, wanted = both(up, scores)
    assert found.shape == wanted.shape == (3, 6, factor * size[0], factor * size[1])
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("factor", [8, 32])
def test_blockwise_scores_are_cropped_to_the_image(factor: int) -> None:
    up = TransposedUpsampler(3, factor, init="random").eval()
    scores = torch.randn(1, 3, 3, 4)
    size = (3 * factor - 5, 4 * factor - 1)
    with torch.inference_mode():
        found, wanted = up(scores, size), nn.ConvTranspose2d.forward(up, scores)[..., : size[0], : size[1]]
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


CHANNELS: list[Literal["dense", "diagonal", "per_class"]] = ["dense", "diagonal", "per_class"]


@pytest.mark.parametrize("channels", CHANNELS)
def test_blockwise_scores_equal_those_of_torch_for_all_channels_and_geometries(
    channels: Literal["dense", "diagonal", "per_class"],
) -> None:
    for geometry in ({}, {"kernel": 16, "padding": 0}, {"kernel": 20, "padding": 6}):
        up = TransposedUpsampler(4, 8, init="normal", channels=channels, **geometry).eval()
        torch.testing.assert_close(*both(up, torch.randn(2, 4, 3, 5)), rtol=1e-5, atol=1e-6)


def test_gradients_equal_those_of_the_transposed_convolution() -> None:
    up = TransposedUpsampler(3, 32, init="random")
    gradients = []
    for forward in (up, lambda scores: nn.ConvTranspose2d.forward(up, scores)):
        scores = torch.linspace(-1, 1, 12).view(1, 3, 2, 2).requires_grad_()
        gradients.append(torch.autograd.grad(forward(scores).square().sum(), (scores, up.weight)))
    torch.testing.assert_close(*gradients)
