"""Utilization of the machine while a trial trains, under the names of MLflow's system metrics.

They are read from `/proc` and NVML, so that no further package is needed. Metrics that a machine does not offer are
left out.
"""

from __future__ import annotations

import ctypes
from pathlib import Path

import torch

from fcnlab.constants import NVML

PROC = Path("/proc")


class _Utilization(ctypes.Structure):
    """`nvmlUtilization_t`: percent of the last sampling interval of the driver, at most one second."""

    _fields_ = (("gpu", ctypes.c_uint), ("memory", ctypes.c_uint))


class SystemMonitor:
    """Measures the CPU, the memory and the GPU of a trial."""

    def __init__(self, device: torch.device) -> None:
        """Begin to measure.

        Args:
            device: device that trains.
        """
        self._device = device
        self._cpu_times = _read_cpu_times()
        self._nvml, self._gpu = _open_gpu(device) if device.type == "cuda" else (None, None)

    def sample(self) -> dict[str, float]:
        """Return the utilization now; that of the CPU is the mean since the previous call.

        Returns:
            `cpu_utilization_percentage`, `system_memory_usage_megabytes`, `system_memory_usage_percentage`, and on a
            GPU `gpu_<index>_utilization_percentage`, `gpu_<index>_memory_usage_megabytes` and
            `gpu_<index>_memory_usage_percentage`, where the index counts the devices of the trial. The CPU and the
            memory are those of the whole machine.
        """
        return {name: round(value, 1) for name, value in {**self._sample_cpu(), **self._sample_gpu()}.items()}

    def _sample_cpu(self) -> dict[str, float]:
        metrics: dict[str, float] = {}
        before, now = self._cpu_times, _read_cpu_times()
        if before is not None and now is not None and now[1] > before[1]:
            metrics["cpu_utilization_percentage"] = 100 * (now[0] - before[0]) / (now[1] - before[1])
        self._cpu_times = now
        memory = _read_memory()
        if memory is not None:
            available, total = memory
            metrics["system_memory_usage_megabytes"] = (total - available) / 1e6
            metrics["system_memory_usage_percentage"] = 100 * (total - available) / total
        return metrics

    def _sample_gpu(self) -> dict[str, float]:
        if self._device.type != "cuda":
            return {}
        prefix = f"gpu_{self._device.index or 0}"
        free, total = torch.cuda.mem_get_info(self._device)
        metrics = {
            f"{prefix}_memory_usage_megabytes": (total - free) / 1e6,
            f"{prefix}_memory_usage_percentage": 100 * (total - free) / total,
        }
        utilization = _Utilization()
        # NVML's functions return 0 on success.
        if self._nvml is not None and not self._nvml.nvmlDeviceGetUtilizationRates(
            self._gpu, ctypes.byref(utilization)
        ):
            metrics[f"{prefix}_utilization_percentage"] = float(utilization.gpu)
        return metrics


def _read_cpu_times() -> tuple[float, float] | None:
    """Return the busy and the total time of all cores since the start of the machine; None on other systems."""
    try:
        fields = (PROC / "stat").read_text(encoding="ascii").splitlines()[0].split()[1:9]
        user, nice, system, idle, waiting, *interrupts = map(float, fields)
    except (OSError, ValueError, IndexError):
        return None
    total = user + nice + system + idle + waiting + sum(interrupts)
    return total - idle - waiting, total


def _read_memory() -> tuple[float, float] | None:
    """Return the available and the total memory in bytes; None on other systems."""
    try:
        lines = (PROC / "meminfo").read_text(encoding="ascii").splitlines()
        sizes = {line.split(":")[0]: 1024 * float(line.split()[1]) for line in lines if line.endswith("kB")}
        return sizes["MemAvailable"], sizes["MemTotal"]
    except (OSError, ValueError, KeyError):
        return None


def _open_gpu(device: torch.device) -> tuple[ctypes.CDLL | None, ctypes.c_void_p | None]:
    """Return NVML and its handle of a GPU; None for both where NVML is missing or does not know the GPU."""
    handle = ctypes.c_void_p()
    uuid = f"GPU-{torch.cuda.get_device_properties(device).uuid}"
    try:
        nvml = ctypes.CDLL(NVML)
        if nvml.nvmlInit_v2() or nvml.nvmlDeviceGetHandleByUUID(uuid.encode(), ctypes.byref(handle)):
            return None, None
    except (OSError, AttributeError):  # no driver, or a library without these functions
        return None, None
    return nvml, handle
