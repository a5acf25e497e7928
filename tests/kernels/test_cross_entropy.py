"""Tests of the C cross entropy and its fallback against torch, and of the compilation."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fcnlab.kernels import build
from fcnlab.kernels.cross_entropy import PixelLoss, cross_entropy_, cross_entropy_fallback_

needs_compiler = pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")
WAYS = [
    pytest.param(cross_entropy_, id="compiled", marks=needs_compiler),
    pytest.param(cross_entropy_fallback_, id="fallback"),
]


def batch(n: int, num_classes: int, pixels: int, seed: int, spread: float = 3.0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    scores = spread * torch.randn(n, num_classes, pixels, generator=generator)
    labels = torch.randint(0, num_classes, (n, pixels), generator=generator)
    labels[torch.rand(n, pixels, generator=generator) < 0.3] = 255
    return scores, labels.to(torch.uint8), torch.rand(n, generator=generator)


def torchs(scores: Tensor, labels: Tensor, scales: Tensor, weights: Tensor, smoothing: float) -> tuple[Tensor, Tensor]:
    """Compute loss and gradient by torch in float64."""
    scores = scores.double().requires_grad_()
    overrides = {"weight": weights.double(), "label_smoothing": smoothing, "ignore_index": 255, "reduction": "none"}
    loss = (F.cross_entropy(scores, labels.long(), **overrides).sum(1) * scales.double()).sum()
    loss.backward()
    assert scores.grad is not None
    return loss.detach(), scores.grad


@pytest.mark.parametrize("way", WAYS)
@given(
    st.integers(1, 4),
    st.integers(1, 24),
    st.integers(1, 50),
    st.sampled_from([0.0, 0.1, 0.9]),
    st.sampled_from([1e-3, 3.0, 60.0]),
    st.integers(0, 99),
)
@settings(deadline=None, max_examples=60)
def test_loss_and_gradient_equal_those_of_torch(
    way: object, n: int, num_classes: int, pixels: int, smoothing: float, spread: float, seed: int
) -> None:
    scores, labels, scales = batch(n, num_classes, pixels, seed, spread)
    weights = torch.rand(num_classes, generator=torch.Generator().manual_seed(seed)) * (torch.arange(num_classes) != 1)
    expected, slope = torchs(scores, labels, scales, weights, smoothing)
    found = way(scores, labels, scales, PixelLoss.from_class_weights(num_classes, weights, smoothing, scores.device))
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(scores.double(), slope, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("way", WAYS)
@given(st.integers(1, 4), st.integers(2, 24), st.integers(1, 50), st.sampled_from([0.0, 0.1]), st.integers(0, 99))
@settings(deadline=None, max_examples=40)
def test_the_gradient_of_another_loss_of_the_probabilities_is_added(
    way: Any, n: int, num_classes: int, pixels: int, smoothing: float, seed: int
) -> None:
    scores, labels, scales = batch(n, num_classes, pixels, seed)
    generator = torch.Generator().manual_seed(seed)
    slopes = {index: torch.randn(n, pixels, generator=generator) for index in range(0, num_classes, 2)}
    expected, slope = torchs(scores, labels, scales, torch.ones(num_classes), smoothing)
    exact = scores.double().requires_grad_()
    probabilities = exact.softmax(1)
    sum((probabilities[:, index] * values).sum() for index, values in slopes.items()).backward()
    assert exact.grad is not None
    loss = PixelLoss.from_class_weights(num_classes, None, smoothing, scores.device)
    found = way(scores, labels, scales, loss, slopes)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(scores.double(), slope + exact.grad, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("way", WAYS)
def test_the_gradient_of_bfloat16_scores_is_rounded_once(way: object) -> None:
    scores, labels, scales = batch(5, 21, 40, 0)
    half = scores.bfloat16()
    pixel = PixelLoss.from_class_weights(21, None, 0.0, scores.device)
    loss, slope = torchs(half, labels, scales, torch.ones(21), 0.0)
    assert way(half, labels, scales, pixel).item() == pytest.approx(loss.item(), rel=1e-5)
    torch.testing.assert_close(half.double(), slope, rtol=2**-8, atol=1e-7)  # half a unit in the last of 8 bits


@needs_compiler
def test_strides_are_respected_and_other_memory_is_not_changed() -> None:
    scores, labels, scales = batch(4, 3, 20, 0)
    pixel = PixelLoss.from_class_weights(3, None, 0.0, scores.device)
    wide = torch.full((3, 4, 20), 7.0)
    inside = wide.transpose(0, 1)
    inside.copy_(scores)
    contiguous, expected = wide.clone().transpose(0, 1)[:2], scores.clone()
    loss = cross_entropy_(expected, labels, scales, pixel)
    assert torch.equal(cross_entropy_(inside, labels, scales, pixel), loss)
    assert torch.equal(inside, expected)
    cross_entropy_(contiguous, labels[:2], scales[:2], pixel)
    assert torch.equal(contiguous, expected[:2])


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_score_that_is_not_finite_makes_the_loss_not_finite(way: object, bad: float) -> None:
    scores, labels, scales = batch(2, 5, 16, 0)
    labels[0, 3] = 1
    scores[0, 2, 3] = bad
    pixel = PixelLoss.from_class_weights(5, None, 0.0, scores.device)
    assert not way(scores, labels, scales + 1, pixel).isfinite()


@needs_compiler
def test_a_label_out_of_range_is_an_error() -> None:
    scores, labels, scales = batch(2, 5, 16, 0)
    labels[1, 15] = 5
    with pytest.raises(IndexError, match="label 5 is out of range for 5 classes"):
        cross_entropy_(scores, labels, scales, PixelLoss.from_class_weights(5, None, 0.0, scores.device))


@pytest.fixture
def _clear_cache() -> None:
    build.load_library.cache_clear()


@pytest.mark.usefixtures("_clear_cache")
def test_the_fallback_is_used_without_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fcnlab.kernels.build.shutil.which", lambda _: None)
    assert build.load_library("cross_entropy") is None
    scores, labels, scales = batch(2, 5, 16, 0)
    expected, pixel = scores.clone(), PixelLoss.from_class_weights(5, None, 0.0, scores.device)
    loss = cross_entropy_fallback_(expected, labels, scales, pixel)
    assert torch.equal(cross_entropy_(scores, labels, scales, pixel), loss)
    assert torch.equal(scores, expected)
    build.load_library.cache_clear()


@needs_compiler
@pytest.mark.usefixtures("_clear_cache")
def test_an_environment_variable_turns_the_kernels_off(monkeypatch: pytest.MonkeyPatch) -> None:
    assert build.load_library("cross_entropy") is not None
    build.load_library.cache_clear()
    monkeypatch.setenv(build.KERNELS_VARIABLE, "0")
    assert [name for name in build.KERNELS if build.load_library(name) is not None] == []
    build.load_library.cache_clear()


@pytest.mark.usefixtures("_clear_cache")
def test_a_failing_compiler_warns_once_and_the_fallback_is_used(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fails = shutil.which("false")
    monkeypatch.setattr("fcnlab.kernels.build.shutil.which", lambda _: fails)
    assert build.load_library("cross_entropy") is None
    assert build.load_library("cross_entropy") is None
    assert len(caplog.records) == 1
    assert "cross_entropy.c could not be compiled" in caplog.text
    build.load_library.cache_clear()


@needs_compiler
@pytest.mark.usefixtures("_clear_cache")
def test_a_compiled_kernel_is_cached_for_other_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FCNLAB_CACHE", str(tmp_path))
    assert build.load_library("cross_entropy") is not None
    (built,) = (tmp_path / f"kernels-{os.getuid()}").glob("*.so")
    modified = built.stat().st_mtime_ns
    build.load_library.cache_clear()
    assert build.load_library("cross_entropy") is not None
    assert built.stat().st_mtime_ns == modified
