"""The Triton cross entropy gives the results of torch's; see `checks_of_cross_entropy.py`."""

from __future__ import annotations

import pytest

from tests.kernels.on_triton import needs_gpu, run_checks


@pytest.mark.parametrize("interpreted", [True, pytest.param(False, marks=[pytest.mark.gpu, needs_gpu])])
def test_the_triton_cross_entropy_is_torchs(interpreted: bool) -> None:
    run_checks("checks_of_cross_entropy.py", interpreted=interpreted)
