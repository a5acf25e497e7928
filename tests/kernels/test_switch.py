"""Tests of the selection of Triton kernels."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from fcnlab.kernels import switch

CUDA = torch.device("cuda", 0)


@pytest.fixture(autouse=True)
def _forget(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for variable in (switch.TRITON_VARIABLE, switch.INTERPRET_VARIABLE):
        monkeypatch.delenv(variable, raising=False)
    switch._supported.cache_clear()
    switch._driver_starts.cache_clear()
    yield
    switch._supported.cache_clear()
    switch._driver_starts.cache_clear()


class Driver:
    def __init__(self, error: Exception | None) -> None:
        self.error = error

    @property
    def active(self) -> Driver:
        return self

    def get_current_target(self) -> str:
        if self.error is not None:
            raise self.error
        return "cuda:90"


def machine(monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], error: Exception | None = None) -> None:
    """Make torch see a GPU of a compute capability, and Triton start or fail."""
    runtime = pytest.importorskip("triton.runtime", reason="Triton is not installed")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    monkeypatch.setattr(runtime, "driver", Driver(error))


def test_kernels_are_used_on_a_gpu_that_triton_supports(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, (9, 0))
    assert switch.is_triton_available(CUDA)
    monkeypatch.setenv(switch.TRITON_VARIABLE, "0")
    assert not switch.is_triton_available(CUDA)


def test_kernels_are_not_used_on_an_older_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, (6, 1))
    assert not switch.is_triton_available(CUDA)


def test_a_missing_c_compiler_warns_once(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    machine(monkeypatch, (9, 0), RuntimeError("Failed to find C compiler."))
    assert not switch.is_triton_available(CUDA)
    assert not switch.is_triton_available(CUDA)
    (record,) = caplog.records
    assert "Failed to find C compiler" in record.getMessage()


def test_on_the_cpu_kernels_run_only_in_the_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("triton", reason="Triton is not installed")
    assert not switch.is_triton_available(torch.device("cpu"))
    monkeypatch.setenv(switch.INTERPRET_VARIABLE, "1")
    assert switch.is_triton_available(torch.device("cpu"))
