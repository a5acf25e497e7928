"""Runs `checks_of_cross_entropy.py`: the Triton cross entropy equals that of torch."""

from __future__ import annotations

import pytest

from tests.kernels.on_triton import needs_gpu, run_checks


@pytest.mark.parametrize("interpreted", [True, pytest.param(False, marks=[pytest.mark.gpu, needs_gpu])])
def test_the_triton_cross_entropy_equals_that_of_torch(interpreted: bool) -> None:
    run_checks("checks_of_cross_entropy.py", interpreted=interpreted)
