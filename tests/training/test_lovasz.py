"""Tests of the Lovász-Softmax loss against segmentation_models_pytorch, and in float64."""

from __future__ import annotations

import shutil
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from segmentation_models_pytorch.losses import LovaszLoss
from torch import Tensor

from fcnlab.kernels import lovasz as kernel
from fcnlab.training.lovasz import lovasz_softmax, lovasz_softmax_without_sync

needs_compiler = pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")
WAYS = [
    pytest.param(lovasz_softmax, id="compiled", marks=needs_compiler),
    pytest.param(lovasz_softmax_without_sync, id="operators"),
]


def draw_batch(
    seed: int, num_classes: int, ignored: float, shape: tuple[int, ...] = (2, 3, 5)
) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(shape[0], num_classes, *shape[1:], generator=generator)
    labels = torch.randint(num_classes, shape, generator=generator, dtype=torch.uint8)
    labels[torch.rand(shape, generator=generator) < ignored] = 255
    return scores, labels


@pytest.mark.parametrize("way", WAYS)
@given(st.integers(0, 2**32 - 1), st.integers(2, 5), st.sampled_from([0.0, 0.3, 1.0]))
@settings(deadline=None, max_examples=40)
def test_it_equals_the_loss_of_segmentation_models_pytorch(
    way: Callable[[Tensor, Tensor], Tensor], seed: int, num_classes: int, ignored: float
) -> None:
    scores, labels = draw_batch(seed, num_classes, ignored)
    found, expected = scores.clone().requires_grad_(), scores.clone().requires_grad_()
    ours, theirs = way(found, labels), LovaszLoss("multiclass", ignore_index=255)(expected, labels.long())
    ours.backward()
    if (labels == 255).all():
        assert ours == 0 and found.grad is not None and not found.grad.any()
        return
    theirs.backward()
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(found.grad, expected.grad, rtol=1e-4, atol=1e-6)


def exact_loss(probabilities: Tensor, labels: Tensor) -> Tensor:
    """Compute the loss of probabilities [C, N] in float64, by the formulas of the paper."""
    probabilities, labels = probabilities.double()[:, labels != 255], labels[labels != 255]
    terms = []
    for index in labels.unique().tolist():
        of_class = (labels == index).double()
        errors, order = (of_class - probabilities[index]).abs().sort(descending=True)
        of_class = of_class[order]
        missing = of_class.sum() - of_class.cumsum(0)
        jaccard = 1 - missing / (of_class.sum() + (1 - of_class).cumsum(0))
        terms.append((errors * torch.diff(jaccard, prepend=torch.zeros(1))).sum())
    return torch.stack(terms).mean()


@needs_compiler
@pytest.mark.parametrize("ignored", [0.0, 0.3])
def test_the_gradient_of_many_pixels_is_that_of_float64(ignored: float) -> None:
    scores, labels = draw_batch(0, 7, ignored, (2, 90, 110))
    found, exact = scores.clone().requires_grad_(), scores.double().requires_grad_()
    lovasz_softmax(found, labels).backward()
    exact_loss(exact.softmax(1).movedim(1, 0).flatten(1), labels.flatten()).backward()
    assert found.grad is not None and exact.grad is not None
    assert float((found.grad - exact.grad).norm() / exact.grad.norm()) < 1e-4


@needs_compiler
def test_errors_are_sorted_over_their_whole_range() -> None:
    generator = torch.Generator().manual_seed(0)
    exponents = torch.randint(-149, 1, (2, 4000), generator=generator)
    probabilities = torch.ldexp(torch.rand(2, 4000, generator=generator), exponents)
    probabilities[:, :20], probabilities[:, 20:40] = 0, 1
    labels = torch.randint(2, (4000,), generator=generator, dtype=torch.uint8)
    loss, _ = kernel.lovasz_of_probabilities(probabilities, labels)
    assert float(loss) == pytest.approx(float(exact_loss(probabilities, labels)), rel=1e-6)


@needs_compiler
def test_scores_that_are_not_finite_give_a_loss_that_is_not() -> None:
    scores, labels = draw_batch(0, 3, 0.0)
    scores[0, 1, 1, 1] = torch.nan
    assert not lovasz_softmax(scores, labels).isfinite()


@needs_compiler
def test_a_label_that_is_no_class_is_an_error() -> None:
    scores, labels = draw_batch(0, 3, 0.0)
    labels[0, 0, 0] = 3
    with pytest.raises(IndexError, match="label 3 is out of range for 3 classes"):
        lovasz_softmax(scores, labels)


def test_without_a_compiler_the_loss_is_that_of_segmentation_models_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "load_library", lambda _: None)
    scores, labels = draw_batch(0, 3, 0.3)
    expected = LovaszLoss("multiclass", ignore_index=255)(scores, labels.long())
    assert torch.equal(lovasz_softmax(scores, labels), expected)
