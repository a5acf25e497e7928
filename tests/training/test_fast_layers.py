"""Tests of replaced batch norms and maximum pooling; their kernels are tested in `tests/kernels`."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from fcnlab.config.registry import builtin
from fcnlab.config.variant import Backbone
from fcnlab.models import TimmBackbone
from fcnlab.training import fast_layers
from fcnlab.training.fast_layers import (
    FastBatchNorm2d,
    FastBatchNormAct2d,
    MaxPool2d,
    replace_batch_norm,
    replace_max_pooling,
)


def networks() -> list[str]:
    """Return the timm networks of the registry, and others that combine norms and activations differently."""
    registry = builtin()
    entries = [registry.get("backbone", name) for name in registry.names("backbone")]
    listed = [entry.timm.partition(".")[0] for entry in entries if isinstance(entry, Backbone) and entry.timm]
    shared_relu = {"legacy_seresnet18", "dla46_c"}
    return sorted(
        {*listed, *shared_relu, "resnet10t", "efficientnet_b0", "regnety_002", "densenet121", "test_convnext"}
    )


@pytest.fixture
def _without_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make replaced layers run their Triton path on the CPU, with PyTorch operators instead of the kernels."""

    def normalized(norm: Any, x: Tensor) -> Tensor:
        if norm.training:
            norm.num_batches_tracked.add_(1)
        statistics = norm.running_mean, norm.running_var
        y = F.batch_norm(x, *statistics, norm.weight, norm.bias, norm.training, norm.momentum, norm.eps)
        return {"none": lambda z: z, "relu": F.relu, "relu6": F.relu6}[norm.activation](y)

    monkeypatch.setattr(fast_layers, "runs_as_kernel", lambda _: torch.is_grad_enabled())
    monkeypatch.setattr(fast_layers, "_normalize", normalized)


@pytest.mark.usefixtures("_without_kernels")
@pytest.mark.parametrize("name", networks())
def test_replaced_batch_norms_do_not_change_the_results_of_a_network(name: str) -> None:
    torch.manual_seed(0)
    plain: nn.Module = TimmBackbone(name, pretrained=False)
    with torch.no_grad():
        for module in plain.modules():
            if isinstance(module, nn.BatchNorm2d):  # so that every ReLU has an effect
                module.bias.normal_()
    fast = copy.deepcopy(plain)
    replace_batch_norm(fast)
    images = torch.randn(2, 3, 64, 64)
    for module in (plain, fast):
        module.train()
        torch.manual_seed(1)  # for dropout
        sum(map_.square().mean() for map_ in module(images).values()).backward()
    for (path, ours), theirs in zip(fast.named_parameters(), plain.parameters(), strict=True):
        assert (ours.grad is None) == (theirs.grad is None), path
        if ours.grad is not None and theirs.grad is not None:
            torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-3, atol=1e-5, msg=path)
    for (path, buffer), wanted in zip(fast.named_buffers(), plain.buffers(), strict=True):
        torch.testing.assert_close(buffer, wanted, msg=path)
    with torch.no_grad():
        before, after = plain.eval()(images), fast.eval()(images)
    assert all(torch.equal(before[stride], after[stride]) for stride in before)


class Block(nn.Module):
    """Layers with one batch norm and one in-place ReLU, which `forward` combines in different ways."""

    def __init__(self, order: str) -> None:
        super().__init__()
        self.order = order
        self.conv, self.norm, self.relu = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        match self.order:
            case "relu also after a convolution":
                return self.relu(self.conv(self.relu(self.norm(x))))
            case "relu also after a sum":
                y = self.relu(self.norm(x))
                return self.relu(self.norm(y) - x)
            case "norm also without relu":
                return self.norm(self.conv(self.relu(self.norm(x))))
            case "norm read before relu":
                y = self.norm(x)
                raw = y + x
                return self.relu(y) + raw
            case "norm returned":
                y = self.norm(x)
                return y if x.mean() > 100 else self.conv(y) - self.relu(self.conv(x))
            case "norm changed in place":
                y = self.norm(x)
                y -= x
                return self.relu(y)
        raise NotImplementedError(self.order)


ORDERS = [
    "relu also after a convolution",
    "relu also after a sum",
    "norm also without relu",
    "norm read before relu",
    "norm returned",
    "norm changed in place",
]


@pytest.mark.usefixtures("_without_kernels")
@pytest.mark.parametrize("order", ORDERS)
def test_activations_are_fused_only_where_they_are_applied(order: str) -> None:
    torch.manual_seed(0)
    plain = Block(order)
    fast = copy.deepcopy(plain)
    replace_batch_norm(fast)
    x = torch.randn(2, 3, 4, 4)
    torch.testing.assert_close(fast(x), plain(x))


@pytest.mark.usefixtures("_without_kernels")
def test_networks_of_a_fixed_size_are_replaced_at_that_size() -> None:
    class Fixed(nn.Sequential):
        def forward(self, input: Tensor) -> Tensor:
            assert input.shape[2:] == (48, 32)
            output: Tensor = super().forward(input)
            return output

    model = Fixed(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU(inplace=True))
    replace_batch_norm(model, (48, 32))
    assert isinstance(model[1], FastBatchNorm2d)
    assert model[1].activation == "relu"


@pytest.mark.usefixtures("_without_kernels")
def test_unsupported_batch_norms_are_not_replaced() -> None:
    class Silent(nn.BatchNorm2d):
        """A subclass, which could compute something else."""

    layers = nn.Sequential(
        nn.Conv2d(3, 4, 1),
        nn.BatchNorm2d(4, affine=False),
        nn.BatchNorm2d(4, track_running_stats=False),
        nn.BatchNorm2d(4, momentum=None),
        Silent(4),
        nn.BatchNorm2d(4),
    )
    replace_batch_norm(layers)
    assert [isinstance(layer, FastBatchNorm2d | FastBatchNormAct2d) for layer in layers] == [False] * 5 + [True]


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
