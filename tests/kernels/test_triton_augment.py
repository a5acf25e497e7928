"""The Triton kernels of the augmentation give the results of the CPU; see `checks_of_augment.py`."""

from __future__ import annotations

import pytest

from tests.kernels.on_triton import needs_gpu, run_checks


@pytest.mark.parametrize("interpreted", [True, pytest.param(False, marks=[pytest.mark.gpu, needs_gpu])])
def test_the_triton_augmentation_is_that_of_the_cpu(interpreted: bool) -> None:
    run_checks("checks_of_augment.py", interpreted=interpreted)
