"""The device that a benchmark runs on, and timing on it."""

from __future__ import annotations

import pytest
import torch

from fcnlab.bench.machine import choose_device, device_gemm_peak, synchronized
from fcnlab.errors import RunError


def test_a_device_by_name_must_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("cpu") == choose_device(None) == torch.device("cpu")
    with pytest.raises(RunError, match=r"--device cuda: torch .* finds no CUDA device"):
        choose_device("cuda")


def test_by_default_the_device_is_that_of_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.delenv("FCNLAB_DEVICE", raising=False)
    assert choose_device(None).type == "cuda"
    monkeypatch.setenv("FCNLAB_DEVICE", "cpu")
    assert choose_device(None).type == "cpu"


def test_synchronized_work_returns_its_images() -> None:
    assert synchronized(lambda: 3, torch.device("cpu"))() == 3


@pytest.mark.gpu
def test_the_peak_of_products_is_higher_in_bfloat16() -> None:
    if not torch.cuda.is_available():
        pytest.skip("torch finds no CUDA device")
    device = torch.device("cuda")
    wide, narrow = (device_gemm_peak(device, of, side=4096, repeats=3) for of in (torch.float32, torch.bfloat16))
    assert narrow > wide > 1e12
