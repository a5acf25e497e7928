"""Tests of replaced batch norms: they do not change the results of a backbone, with or without fused ReLUs."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fcnlab.config.registry import builtin
from fcnlab.config.variant import Backbone
from fcnlab.models import TimmBackbone
from fcnlab.training import fast_norm
from fcnlab.training.fast_norm import FastBatchNorm2d, FastBatchNormAct2d, replace_batch_norm

torch.set_num_threads(1)


def networks() -> list[str]:
    """Return the timm networks of the registry, and others that join norms and activations differently."""
    registry = builtin()
    entries = [registry.get("backbone", name) for name in registry.names("backbone")]
    listed = [entry.timm.partition(".")[0] for entry in entries if isinstance(entry, Backbone) and entry.timm]
    return sorted({*listed, "resnet10t", "efficientnet_b0", "regnety_002", "densenet121", "test_convnext"})


@pytest.fixture
def _plainly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make replaced layers run their Triton path on the CPU, with PyTorch operators instead of the kernels."""

    def normalized(norm: Any, x: Tensor) -> Tensor:
        if norm.training:
            norm.num_batches_tracked.add_(1)
        statistics = norm.running_mean, norm.running_var
        y = F.batch_norm(x, *statistics, norm.weight, norm.bias, norm.training, norm.momentum, norm.eps)
        return {"none": lambda z: z, "relu": F.relu, "relu6": F.relu6}[norm.activation](y)

    monkeypatch.setattr(fast_norm, "runs_on_triton", lambda _: torch.is_grad_enabled())
    monkeypatch.setattr(fast_norm, "_normalize", normalized)


@pytest.mark.usefixtures("_plainly")
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
    for (path, ours), theirs in zip(fast.named_buffers(), plain.buffers(), strict=True):
        torch.testing.assert_close(ours, theirs, msg=path)
    with torch.no_grad():
        before, after = plain.eval()(images), fast.eval()(images)
    assert all(torch.equal(before[stride], after[stride]) for stride in before)


@pytest.mark.usefixtures("_plainly")
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
