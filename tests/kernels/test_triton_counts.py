"""Runs `checks_of_counts.py`: the Triton counts are exact."""

from __future__ import annotations

import pytest

from tests.kernels.on_triton import needs_gpu, run_checks


@pytest.mark.parametrize("interpreted", [True, pytest.param(False, marks=[pytest.mark.gpu, needs_gpu])])
def test_the_triton_counts_are_exact(interpreted: bool) -> None:
    run_checks("checks_of_counts.py", interpreted=interpreted)
