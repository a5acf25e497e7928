"""Deterministic layers against the ones that they replace."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from fcnlab.training.deterministic import DeterministicMaxPool2d, make_deterministic


@given(
    size=st.tuples(st.integers(3, 9), st.integers(3, 9)),
    kernel=st.integers(2, 3),
    stride=st.integers(1, 3),
    padded=st.booleans(),
    ceil=st.booleans(),
)
@settings(deadline=None, max_examples=100)
def test_pooling_has_the_outputs_and_gradients_of_the_one_it_replaces(
    size: tuple[int, int], kernel: int, stride: int, padded: bool, ceil: bool
) -> None:
    pool = nn.MaxPool2d(kernel, stride, padding=int(padded), ceil_mode=ceil)
    x = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    found, expected = DeterministicMaxPool2d(pool)(ours), pool(theirs)
    assert torch.equal(found, expected)
    weights = torch.randn(expected.shape, dtype=torch.float64)
    (found * weights).sum().backward()
    (expected * weights).sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad)


def test_every_pooling_of_a_model_is_replaced() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sequential(nn.MaxPool2d(2), nn.ReLU()))
    make_deterministic(model)
    assert isinstance(model[1][0], DeterministicMaxPool2d)
    assert not any(isinstance(module, nn.MaxPool2d) for module in model.modules())
