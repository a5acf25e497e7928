"""Tests of the C argmax against torch."""

from __future__ import annotations

import shutil

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fcnlab.kernels.argmax import argmax_classes

SPECIAL = torch.tensor([float("nan"), float("inf"), float("-inf"), 0.0, -0.0])


@pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")
@given(
    st.integers(1, 4),
    st.sampled_from([1, 2, 3, 21, 255]),
    st.integers(0, 50),
    st.sampled_from([torch.float32, torch.bfloat16]),
    st.sampled_from([0.0, 0.1]),
    st.integers(0, 99),
)
@settings(deadline=None, max_examples=60)
def test_it_equals_the_argmax_of_torch(
    n: int, num_classes: int, pixels: int, dtype: torch.dtype, special: float, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randint(-9, 9, (n, num_classes, pixels), generator=generator).to(dtype)  # many are equal
    chosen = torch.rand(scores.shape, generator=generator) < special
    scores[chosen] = SPECIAL[torch.randint(0, len(SPECIAL), scores.shape, generator=generator)].to(dtype)[chosen]
    expected = scores.argmax(1).to(torch.uint8)
    assert torch.equal(argmax_classes(scores), expected)
    strided = scores.permute(1, 0, 2).contiguous().permute(1, 0, 2)  # classes before rows in memory
    assert torch.equal(argmax_classes(strided), expected)


def test_it_accepts_pixels_that_are_not_side_by_side() -> None:
    scores = torch.randn(2, 5, 19)
    by_class_last = scores.transpose(1, 2).contiguous().transpose(1, 2)
    assert torch.equal(argmax_classes(by_class_last), scores.argmax(1).to(torch.uint8))


def test_it_needs_no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fcnlab.kernels.argmax.load_library", lambda _: None)
    scores = torch.randn(2, 5, 19)
    assert torch.equal(argmax_classes(scores), scores.argmax(1).to(torch.uint8))
