"""Tests of the choice between bf16 and fp32 on the CPU."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from fcnlab.training import precision_probe
from fcnlab.training.hardware import resolve_precision
from fcnlab.training.precision_probe import is_bf16_faster, measure_speedup

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("FCNLAB_CACHE", str(tmp_path / "cache"))
    is_bf16_faster.cache_clear()
    yield tmp_path / "cache"
    is_bf16_faster.cache_clear()


def pretend(monkeypatch: pytest.MonkeyPatch, flags: str, *speedups: float) -> None:
    """Pretend that the processor has these flags, and that measurements give these results in turn."""
    results = iter(speedups)
    monkeypatch.setattr(precision_probe, "get_processor_flags", lambda: flags)
    monkeypatch.setattr(precision_probe, "measure_speedup", lambda: next(results))


needs_bf16 = pytest.mark.skipif(
    not (torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()),
    reason="torch has no bf16 on this processor",
)


@needs_bf16
@pytest.mark.parametrize(("speedup", "expected"), [(1.9, "bf16"), (1.0, "fp32"), (0.2, "fp32")])
def test_auto_is_the_faster_precision(speedup: float, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, "flags: avx512f avx512_bf16", speedup)
    assert resolve_precision("auto", CPU) == expected


def test_emulated_bf16_is_not_measured(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    pretend(monkeypatch, "flags: avx2")
    monkeypatch.setattr(torch.ops, "mkldnn", None)  # as in torch without oneDNN
    assert resolve_precision("auto", CPU) == "fp32" and not cache.exists()


@needs_bf16
def test_the_measurement_is_kept_for_other_processes(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    pretend(monkeypatch, "flags: avx512_bf16", 1.9, 0.5)
    assert is_bf16_faster()
    is_bf16_faster.cache_clear()  # as in another process
    assert is_bf16_faster()
    (file,) = (cache / "precision").iterdir()
    assert json.loads(file.read_text())["bf16_speedup"] == 1.9
    file.write_text("{")
    is_bf16_faster.cache_clear()
    assert not is_bf16_faster() and json.loads(file.read_text())["bf16_speedup"] == 0.5


@needs_bf16
def test_a_cache_that_cannot_be_written_does_not_matter(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    pretend(monkeypatch, "flags: avx512_bf16", 1.9)
    cache.write_text("a file in place of the folder")
    assert is_bf16_faster()


def test_measuring_changes_neither_random_numbers_nor_gradients() -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    with torch.inference_mode():  # as in evaluation
        assert measure_speedup() > 0
        assert torch.equal(torch.rand(3), expected)
