"""The GPU, the software, and the bandwidth of copies."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from typing import Any

import torch

from benchmarks.gpu.timings import rounds, shared_memory

QUERY = (
    "name", "driver_version", "memory.total", "clocks.sm", "clocks.max.sm", "clocks.mem", "power.limit",
    "temperature.gpu", "mig.mode.current", "pcie.link.gen.current",
)  # fmt: skip
PACKAGES = (
    "torch", "torchvision", "timm", "triton", "numpy", "pillow", "pydantic", "segmentation-models-pytorch",
    "albumentations", "opencv-python-headless", "mlflow", "onnx",
)  # fmt: skip


def describe(device: torch.device) -> dict[str, Any]:
    """Return name, capability and memory of a device, and the versions that affect results and timings.

    Args:
        device: the device.
    """
    cuda = device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name() if cuda else platform.processor() or platform.machine(),
        "smi": query_smi(),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in PACKAGES},
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "nccl": torch.cuda.nccl.version() if cuda else None,
        "capability": list(torch.cuda.get_device_capability()) if cuda else None,
        "memory": torch.cuda.mem_get_info() if cuda else None,
        "cores": len(os.sched_getaffinity(0)),
        "shared_memory": shared_memory(),
    }


def measure_copies(device: torch.device, size: int) -> dict[str, dict[str, Any]]:
    """Measure copies of `size` bytes on the device, and of an eighth of that from pinned memory.

    Args:
        device: the device.
        size: bytes.
    """
    source = torch.empty(size, dtype=torch.uint8, device=device).random_()
    target = torch.empty_like(source)
    seconds = rounds(lambda: target.copy_(source), device, 5, 20)
    pinned = torch.empty(size // 8, dtype=torch.uint8, pin_memory=device.type == "cuda")
    part = target[: len(pinned)]
    up = rounds(lambda: part.copy_(pinned, non_blocking=True), device, 5, 4)
    return {
        "copy": {"seconds": seconds.json(), "bytes_per_s": 2 * size / seconds.median},
        "upload": {"seconds": up.json(), "bytes_per_s": len(pinned) / up.median},
    }


def query_smi() -> dict[str, str]:
    """Ask nvidia-smi about the first GPU, without changing settings."""
    command = ["nvidia-smi", "-i", "0", f"--query-gpu={','.join(QUERY)}", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired) as error:
        return {"error": str(error)}
    if done.returncode:
        return {"error": (done.stdout + done.stderr).strip()[-500:]}
    return dict(zip(QUERY, (value.strip() for value in done.stdout.split(",")), strict=False))


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
