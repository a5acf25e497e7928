"""Runs `checks_of_batch_norm.py`: the Triton batch norm equals float64 up to rounding."""

from __future__ import annotations

import pytest

from tests.kernels.on_triton import needs_gpu, run_checks


@pytest.mark.parametrize("interpreted", [True, pytest.param(False, marks=[pytest.mark.gpu, needs_gpu])])
def test_the_triton_batch_norm_equals_float64(interpreted: bool) -> None:
    run_checks("checks_of_batch_norm.py", interpreted=interpreted)
