"""Tests of the softmax of some classes against torch."""

from __future__ import annotations

import shutil

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fcnlab.kernels.softmax import softmax_of_classes

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")


@given(
    st.integers(1, 4),
    st.integers(1, 24),
    st.integers(1, 50),
    st.sampled_from([torch.float32, torch.bfloat16]),
    st.sampled_from([1e-3, 3.0, 60.0]),
    st.booleans(),
    st.integers(0, 99),
)
@settings(deadline=None, max_examples=80)
def test_it_equals_the_softmax_of_torch(
    n: int, num_classes: int, pixels: int, dtype: torch.dtype, spread: float, transposed: bool, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    scores = (spread * torch.randn(n, num_classes, pixels, generator=generator)).to(dtype)
    if transposed:
        scores = scores.transpose(0, 1).contiguous().transpose(0, 1)
    wanted = {index: torch.full((n, pixels), torch.nan) for index in range(0, num_classes, 2)}
    softmax_of_classes(scores, wanted)
    expected = scores.double().softmax(1)
    for index, found in wanted.items():
        torch.testing.assert_close(found.double(), expected[:, index], rtol=1e-5, atol=1e-30)


def test_a_score_that_is_not_finite_makes_its_probabilities_nan() -> None:
    scores = torch.zeros(1, 3, 20)
    scores[0, 1, 17] = torch.nan
    wanted = {0: torch.empty(1, 20)}
    softmax_of_classes(scores, wanted)
    assert wanted[0].isnan().nonzero().tolist() == [[0, 17]]
