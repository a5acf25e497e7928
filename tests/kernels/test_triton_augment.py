"""Runs `checks_of_augment.py`: the Triton augmentation equals that of the CPU."""

from __future__ import annotations

import pytest

from tests.kernels.on_triton import needs_gpu, run_checks


@pytest.mark.parametrize("interpreted", [True, pytest.param(False, marks=[pytest.mark.gpu, needs_gpu])])
def test_the_triton_augmentation_equals_that_of_the_cpu(interpreted: bool) -> None:
    run_checks("checks_of_augment.py", interpreted=interpreted)
