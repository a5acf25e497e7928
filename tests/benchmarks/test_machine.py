"""Timing on a device."""

from __future__ import annotations

import pytest
import torch

from benchmarks.speed.machine import device_gemm_peak, synchronized


def test_synchronized_work_returns_its_images() -> None:
    assert synchronized(lambda: 3, torch.device("cpu"))() == 3


@pytest.mark.gpu
def test_the_peak_of_products_is_higher_in_bfloat16() -> None:
    if not torch.cuda.is_available():
        pytest.skip("torch finds no CUDA device")
    device = torch.device("cuda")
    wide, narrow = (device_gemm_peak(device, of, side=4096, repeats=3) for of in (torch.float32, torch.bfloat16))
    assert narrow > wide > 1e12
