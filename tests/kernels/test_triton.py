"""Runs all `checks_of_*.py`: the Triton kernels compute what PyTorch and the CPU compute."""

from __future__ import annotations

import pytest

from tests.kernels.on_triton import needs_gpu, run_checks


@pytest.mark.parametrize("interpreted", [True, pytest.param(False, marks=[pytest.mark.gpu, needs_gpu])])
def test_the_triton_kernels_compute_what_pytorch_and_the_cpu_compute(interpreted: bool) -> None:
    run_checks(interpreted=interpreted)
