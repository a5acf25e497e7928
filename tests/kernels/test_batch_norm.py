"""Tests of the C batch norm against float64, and of its use in networks."""

from __future__ import annotations

import shutil
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fcnlab.kernels import batch_norm, parallel
from fcnlab.kernels.batch_norm import BatchNormActivation
from fcnlab.training.fast_layers import runs_as_kernel
from tests.kernels.networks import assert_equal_steps, create_networks
from tests.kernels.threads import threads

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")

EPSILON, MOMENTUM = 1e-5, 0.3
ACTIVATIONS: dict[str, Any] = {"none": lambda z: z, "relu": F.relu, "relu6": F.relu6}


def channels_last(*shape: int, seed: int, dtype: torch.dtype) -> Tensor:
    values = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return values.to(dtype).to(memory_format=torch.channels_last)


def check(
    shape: tuple[int, int, int, int], activation: str, mode: str, dtype: torch.dtype, offset: float, seed: int
) -> None:
    """Compare output, gradients and statistics with those of float64; `mode` is train, running or frozen."""
    torch.manual_seed(seed)
    channels = shape[1]
    x = (2 * channels_last(*shape, seed=seed, dtype=dtype) + offset).requires_grad_()
    gradient = channels_last(*shape, seed=seed + 1, dtype=dtype)
    values = [torch.rand(channels) + 0.5, torch.rand(channels) * 4 - 1, torch.randn(channels) + offset]
    ours = [*(value.clone() for value in values), torch.rand(channels) + 0.5]
    theirs = [value.double() for value in ours]
    exact = x.detach().double().requires_grad_()
    if mode != "frozen":
        for side in (ours, theirs):
            side[0].requires_grad_()
            side[1].requires_grad_()
    training = mode == "train"
    y = BatchNormActivation.apply(x, *ours, training, MOMENTUM, EPSILON, activation)
    weight, bias, mean, variance = theirs
    normalized = F.batch_norm(exact, mean, variance, weight, bias, training, MOMENTUM, EPSILON)
    expected = ACTIVATIONS[activation](normalized)
    y.backward(gradient)
    expected.backward(gradient.double())
    assert y.dtype == dtype and y.is_contiguous(memory_format=torch.channels_last)
    assert x.grad is not None and exact.grad is not None
    tolerance = {"rtol": 1e-4, "atol": 1e-4} if dtype == torch.float32 else {"rtol": 2e-2, "atol": 2e-2}
    torch.testing.assert_close(y.double(), expected, **tolerance)
    # Rounding moves values across the bends of the activation, where the gradient changes.
    margin = 1e-3 if dtype == torch.float32 else 0.05
    far = (normalized.abs() > margin) & ((normalized - 6).abs() > margin)
    torch.testing.assert_close(x.grad.double()[far], exact.grad[far], **tolerance)
    for found, wanted in zip(ours[2:], theirs[2:], strict=True):
        torch.testing.assert_close(found.double(), wanted, rtol=1e-4, atol=1e-4)
    if mode != "frozen":
        for found, wanted in zip(ours[:2], theirs[:2], strict=True):
            assert found.grad is not None and wanted.grad is not None
            scale = wanted.grad.abs().max().clamp(min=1) * gradient.numel() ** 0.5
            assert (found.grad.double() - wanted.grad).abs().max() < 1e-3 * scale


@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 50), st.integers(2, 9), st.integers(1, 9)),
    activation=st.sampled_from(sorted(ACTIVATIONS)),
    mode=st.sampled_from(["train", "running", "frozen"]),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
    seed=st.integers(0, 99),
)
@settings(deadline=None, max_examples=150)
def test_outputs_gradients_and_statistics_equal_those_of_float64(
    shape: tuple[int, int, int, int], activation: str, mode: str, dtype: torch.dtype, seed: int
) -> None:
    check(shape, activation, mode, dtype, 0.5, seed)


@pytest.mark.parametrize("channels", [1, 3, 16, 24, 40])
@pytest.mark.parametrize("mode", ["train", "running", "frozen"])
def test_the_number_of_threads_does_not_matter(channels: int, mode: str) -> None:
    with threads(2):
        assert parallel.count_parts(2 * channels * 30 * 30) == 2
        check((2, channels, 30, 30), "relu6", mode, torch.float32, 0.5, channels)


def test_the_variance_is_exact_where_the_mean_is_large() -> None:
    check((2, 20, 40, 40), "relu", "train", torch.float32, 300.0, 0)


def test_values_that_are_not_finite_stay_so() -> None:
    x = torch.zeros(1, 20, 3, 3).to(memory_format=torch.channels_last)
    x[0, 17, 1, 1] = torch.nan
    values = torch.ones(20), torch.zeros(20), torch.zeros(20), torch.ones(20)
    for activation in ACTIVATIONS:
        y = BatchNormActivation.apply(x, *values, False, MOMENTUM, EPSILON, activation)
        assert y.isnan().nonzero().tolist() == [[0, 17, 1, 1]]


@pytest.mark.parametrize("name", ["test_resnet", "mobilenetv2_035", "resnet10t"])
@pytest.mark.parametrize("training", [True, False])
def test_gradients_of_a_network_equal_those_without_the_kernel(name: str, training: bool) -> None:
    plain, fast = create_networks(name, torch.device("cpu"))
    images = channels_last(4, 3, 64, 64, seed=0, dtype=torch.float32)
    assert runs_as_kernel(images)
    assert_equal_steps(fast, plain, images, training=training)


def test_a_step_without_compiler_or_gradients_uses_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, fast = create_networks("test_resnet", torch.device("cpu"))
    images = channels_last(2, 3, 64, 64, seed=0, dtype=torch.float32)
    with torch.no_grad():
        assert torch.equal(fast.eval()(images), plain.eval()(images))
    monkeypatch.setattr(batch_norm, "load_library", lambda _: None)
    assert torch.equal(fast.train()(images), plain.train()(images))
