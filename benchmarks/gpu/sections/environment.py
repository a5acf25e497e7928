"""The machine: device, versions, its maximum bandwidth and arithmetic, and the times of fsync and of CUDA's start."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import tempfile
import time
from multiprocessing.connection import Connection
from typing import Any

import torch

from benchmarks.gpu.machine import describe, measure_copies
from benchmarks.gpu.sections.settings import AcceptSettings
from benchmarks.speed.machine import measure_gemm_peaks


def environment(settings: AcceptSettings) -> dict[str, Any]:
    """Describe the machine and measure copy bandwidth, matrix products, fsync and the start of CUDA.

    Args:
        settings: settings of the run.
    """
    start = start_of_cuda() if settings.cuda else {}  # forked before this process uses CUDA
    device = torch.device(settings.device)
    copies = measure_copies(device, 2**22 if settings.smoke else 2**30)
    products = measure_gemm_peaks(device, bf16=settings.cuda, side=256 if settings.smoke else 8192)
    found = {
        **describe(device),
        "compiler": shutil.which("cc") or shutil.which("gcc"),
        "start": start,
        "fsync_64_mib": fsync_time(settings, 2**20 if settings.smoke else 2**26),
        "gemm": products,
        **copies,
    }
    rates = ", ".join(f"{name} {peak / 1e12:.1f}" for name, peak in products.items())
    text = f"{found['device']}: copy {copies['copy']['bytes_per_s'] / 1e9:.0f} GB/s, {rates} TFLOP/s"
    return found | {"detail": text + (f", CUDA starts in {start['first_kernel_s']:.2f} s" if start else "")}


def start_of_cuda() -> dict[str, float]:
    """Return the seconds until a forked child has run its first kernel and its first convolution."""
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


def fsync_time(settings: AcceptSettings, size: int) -> float:
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
