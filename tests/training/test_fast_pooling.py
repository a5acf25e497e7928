"""Tests of maximum pooling against PyTorch's; its kernel is tested in `tests/kernels`."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from fcnlab.training.fast_pooling import MaxPool2d, replace_max_pooling


@given(
    size=st.tuples(st.integers(3, 9), st.integers(3, 9)),
    kernel=st.integers(2, 3),
    stride=st.integers(1, 3),
    padded=st.booleans(),
    ceil=st.booleans(),
    deterministic=st.booleans(),
)
@settings(deadline=None, max_examples=100)
def test_outputs_and_gradients_equal_those_of_the_replaced_pooling(
    size: tuple[int, int], kernel: int, stride: int, padded: bool, ceil: bool, deterministic: bool
) -> None:
    pool = nn.MaxPool2d(kernel, stride, padding=int(padded), ceil_mode=ceil)
    x = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    found, expected = MaxPool2d(pool, deterministic=deterministic)(ours), pool(theirs)
    assert torch.equal(found, expected)
    weights = torch.randn(expected.shape, dtype=torch.float64)
    (found * weights).sum().backward()
    (expected * weights).sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad)


@pytest.mark.parametrize("deterministic", [True, False])
def test_every_max_pooling_of_a_model_is_replaced(deterministic: bool) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sequential(nn.MaxPool2d(2), nn.ReLU()))
    replace_max_pooling(model, deterministic=deterministic)
    assert isinstance(model[1][0], MaxPool2d)
    assert model[1][0].deterministic == deterministic
    assert not any(type(module) is nn.MaxPool2d for module in model.modules())


@pytest.mark.parametrize("options", [{"dilation": 2}, {"return_indices": True}])
def test_unsupported_pooling_is_an_error_only_if_deterministic(options: dict[str, int]) -> None:
    model = nn.Sequential(nn.MaxPool2d(2, **options))
    replace_max_pooling(model, deterministic=False)
    assert type(model[0]) is nn.MaxPool2d
    with pytest.raises(ValueError, match="dilation"):
        replace_max_pooling(model, deterministic=True)


def test_an_exported_program_contains_the_operator_of_pytorch() -> None:
    model = nn.Sequential(nn.MaxPool2d(3, 2, 1))
    replace_max_pooling(model, deterministic=True)
    program = torch.export.export(model, (torch.randn(1, 2, 8, 8),))
    called = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
    assert called == ["aten.max_pool2d.default"]


def test_compiled_deterministic_pooling_is_one_graph() -> None:
    pool = nn.MaxPool2d(3, 2, 1)
    compiled = torch.compile(MaxPool2d(pool, deterministic=True), backend="eager", fullgraph=True)
    x = torch.randn(1, 2, 8, 8)
    assert torch.equal(compiled(x), pool(x))
