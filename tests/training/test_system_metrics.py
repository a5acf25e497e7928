"""Utilization of the machine during training."""

from __future__ import annotations

import ctypes
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from fcnlab.training import system_metrics
from fcnlab.training.system_metrics import SystemMonitor

CPU = torch.device("cpu")


@pytest.fixture
def proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(system_metrics, "PROC", tmp_path)
    return tmp_path


def test_cpu_is_the_mean_since_the_last_sample_and_memory_the_current_one(proc: Path) -> None:
    (proc / "stat").write_text("cpu  100 0 100 700 100 0 0 0 0 0\ncpu0 1 2 3\n")
    (proc / "meminfo").write_text("MemTotal:  4000000 kB\nMemFree:  1 kB\nMemAvailable:  1000000 kB\nHugePages: 0\n")
    monitor = SystemMonitor(CPU)
    (proc / "stat").write_text("cpu  125 0 150 720 105 0 0 0 0 0\ncpu0 1 2 3\n")
    assert monitor.sample() == {
        "cpu_utilization_percentage": 75.0,
        "system_memory_usage_megabytes": 3072.0,
        "system_memory_usage_percentage": 75.0,
    }
    assert "cpu_utilization_percentage" not in monitor.sample(), "no time has passed"


def test_nothing_is_measured_on_systems_without_proc(proc: Path) -> None:
    assert SystemMonitor(CPU).sample() == {}


@pytest.mark.parametrize(("code", "utilization"), [(0, {"gpu_1_utilization_percentage": 93.0}), (3, {})])
def test_gpu_metrics_are_of_the_device_of_the_trial(
    proc: Path, monkeypatch: pytest.MonkeyPatch, code: int, utilization: dict[str, float]
) -> None:
    asked: list[bytes] = []

    def find(uuid: bytes, handle: Any) -> int:
        asked.append(uuid)
        return 0

    def measure(handle: Any, into: Any) -> int:
        into._obj.gpu = 93
        return code

    library = SimpleNamespace(
        nvmlInit_v2=lambda: 0, nvmlDeviceGetHandleByUUID=find, nvmlDeviceGetUtilizationRates=measure
    )
    monkeypatch.setattr(ctypes, "CDLL", lambda name: library)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid="a-b"))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (60_000_000_000, 80_000_000_000))
    memory = {"gpu_1_memory_usage_megabytes": 20000.0, "gpu_1_memory_usage_percentage": 25.0}
    assert SystemMonitor(torch.device("cuda", 1)).sample() == memory | utilization
    assert asked == [b"GPU-a-b"]
