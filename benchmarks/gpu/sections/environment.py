"""The machine: device, versions, and its maximum bandwidth and arithmetic."""

from __future__ import annotations

import multiprocessing
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from multiprocessing.connection import Connection
from typing import Any

import torch

from benchmarks.gpu.sections.settings import Settings

PACKAGES = (
    "torch",
    "torchvision",
    "timm",
    "triton",
    "numpy",
    "pydantic",
    "segmentation-models-pytorch",
    "mlflow",
    "onnx",
)
GIB = 2**30


def environment(settings: Settings) -> dict[str, Any]:
    """Describe the machine and measure copy bandwidth, matrix products, fsync and the start of CUDA.

    Args:
        settings: settings of the run.

    Returns:
        Bandwidths in GB/s, arithmetic in TFLOP/s, times in seconds.
    """
    found: dict[str, Any] = {"start": start_of_cuda(settings.device)}  # forked before this process uses CUDA
    found |= {
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "cores": len(os.sched_getaffinity(0)),
        "compiler": shutil.which("cc") or shutil.which("gcc"),
        "versions": {name: _version(name) for name in PACKAGES},
        "fsync_64_mib": fsync_time(settings, 2**20 if settings.smoke else 2**26),
    }
    device = torch.device(settings.device)
    size = 256 if settings.smoke else 8192
    found["tflops"] = {
        name: round(tera_operations(device, size if name != "fp32" else size // 2, dtype, tf32), 3)
        for name, dtype, tf32 in (
            ("bf16", torch.bfloat16, False),
            ("fp16", torch.float16, False),
            ("tf32", torch.float32, True),
            ("fp32", torch.float32, False),
        )
    }
    found["copy_gb_s"] = copy_bandwidth(device, GIB // 256 if settings.smoke else GIB)
    detail = f"{platform.processor() or platform.machine()}"
    if settings.cuda:
        found |= gpu(device)
        found["upload_gb_s"] = upload_bandwidth(device)
        detail = found["device"]
    tera = found["tflops"]
    found["detail"] = (
        f"{detail}: copy {found['copy_gb_s']:.0f} GB/s, bf16 {tera['bf16']:.0f}, tf32 {tera['tf32']:.0f}, "
        f"fp32 {tera['fp32']:.1f} TFLOP/s, CUDA starts in {found['start'].get('first_kernel_s', 0):.2f} s"
    )
    return found


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def gpu(device: torch.device) -> dict[str, Any]:
    """Return name, capability, memory and library versions of a GPU.

    Args:
        device: the GPU.
    """
    from fcnlab.trial.environment import read_driver_version

    properties = torch.cuda.get_device_properties(device)
    return {
        "device": properties.name,
        "capability": torch.cuda.get_device_capability(device),
        "multiprocessors": properties.multi_processor_count,
        "memory_gib": round(properties.total_memory / GIB, 1),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "nccl": torch.cuda.nccl.version(),
        "driver": read_driver_version(),
    }


def start_of_cuda(device: str) -> dict[str, float]:
    """Return the seconds until a forked child has run its first kernel and its first convolution.

    Args:
        device: `cpu` or `cuda`.
    """
    if device != "cuda":
        return {}
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    child = context.Process(target=_start, args=(theirs, time.perf_counter()))
    child.start()
    theirs.close()
    found: dict[str, float] = ours.recv()
    child.join()
    return found


def _start(pipe: Connection, began: float) -> None:
    x = torch.zeros(1, 3, 64, 64, device="cuda")
    torch.cuda.synchronize()
    first = time.perf_counter() - began
    torch.nn.Conv2d(3, 8, 3, device="cuda")(x)
    torch.cuda.synchronize()
    pipe.send({"first_kernel_s": round(first, 3), "first_convolution_s": round(time.perf_counter() - began, 3)})


def seconds_per_call(device: torch.device, call: Callable[[], object], repeats: int) -> float:
    """Return the mean seconds of a call, after two that do not count.

    Args:
        device: device to synchronize with.
        call: the call.
        repeats: number of calls that count.
    """
    for _ in range(2):
        call()
    if device.type == "cuda":
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        for _ in range(repeats):
            call()
        end.record()
        end.synchronize()
        return begin.elapsed_time(end) / 1000 / repeats
    began = time.perf_counter()
    for _ in range(repeats):
        call()
    return (time.perf_counter() - began) / repeats


def copy_bandwidth(device: torch.device, size: int) -> float:
    """Return the GB/s, read and written, of a copy within a device.

    Args:
        device: the device.
        size: bytes to copy.
    """
    source = torch.zeros(size // 4, device=device)
    target = torch.empty_like(source)
    return 2 * size / seconds_per_call(device, lambda: target.copy_(source), 20) / 1e9


def upload_bandwidth(device: torch.device, size: int = 2**28) -> float:
    """Return the GB/s of a copy from pinned memory to a device.

    Args:
        device: the device.
        size: bytes to copy.
    """
    source = torch.zeros(size // 4, pin_memory=True)
    target = torch.empty_like(source, device=device)
    return size / seconds_per_call(device, lambda: target.copy_(source, non_blocking=True), 10) / 1e9


def tera_operations(device: torch.device, size: int, dtype: torch.dtype, tf32: bool) -> float:
    """Return the TFLOP/s of a product of square matrices.

    Args:
        device: the device.
        size: rows and columns.
        dtype: type of the matrices.
        tf32: allow TF32.
    """
    if device.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = tf32
    one, two = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    return 2 * size**3 / seconds_per_call(device, lambda: one @ two, 10) / 1e12


def fsync_time(settings: Settings, size: int) -> float:
    """Return the seconds that writing a file and waiting for the disk takes.

    Args:
        settings: settings of the run.
        size: bytes of the file.
    """
    with tempfile.NamedTemporaryFile(dir=settings.scratch) as file:
        content = os.urandom(size)
        began = time.perf_counter()
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
        return time.perf_counter() - began
