"""Runs `checks_of_max_pool.py`: the Triton maximum pooling equals that of PyTorch."""

from __future__ import annotations

import pytest

from tests.kernels.on_triton import needs_gpu, run_checks


@pytest.mark.parametrize("interpreted", [True, pytest.param(False, marks=[pytest.mark.gpu, needs_gpu])])
def test_the_triton_max_pooling_equals_that_of_pytorch(interpreted: bool) -> None:
    run_checks("checks_of_max_pool.py", interpreted=interpreted)
