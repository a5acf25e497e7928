"""The benches of counting and evaluation: both sides do the same work, and all measurements are present."""

from __future__ import annotations

import pytest
import torch

from benchmarks.speed import evaluate, metrics
from benchmarks.speed.page import format_comparisons


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (evaluate, metrics):
        monkeypatch.setattr(module, "SIZE", (64, 96))


def test_counting_is_compared_with_torchmetrics_and_numpy_on_the_same_masks() -> None:
    pytest.importorskip("torchmetrics")
    threads = torch.get_num_threads()
    found = metrics.compare(images=8, repeats=2)
    assert torch.get_num_threads() == threads
    assert [name.split(",")[0] for name in found["comparisons"]] == ["torchmetrics", "numpy", "numpy"]
    for comparison in found["comparisons"].values():
        assert [len(timings) for timings in comparison["timings"].values()] == [2, 2]
        assert min(timing["wall"] for timings in comparison["timings"].values() for timing in timings) > 0
    assert found["images"] == 8 and found["machine"]["versions"]["torchmetrics"] != "not installed"


def test_evaluation_is_compared_in_both_precisions_with_the_same_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate, "multiplies_bf16", lambda device: True)
    found = evaluate.compare(images=4, repeats=1)
    assert list(found["comparisons"]) == ["fp32", "bf16"]
    assert found["agreement"]["fp32"] > 0.9999 and found["agreement"]["bf16"] > 0.95
    assert found["comparisons"]["fp32"]["pairs"] == 1
    assert any("float32" in line for line in found["notes"])
    assert "| fp32 |" in format_comparisons("eval", found)
