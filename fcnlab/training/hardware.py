"""The device that trains: which one, how precise, how repeatable."""

from __future__ import annotations

import ctypes
import platform
import resource
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Literal

import torch

from fcnlab.processor import processor_flags, processor_name

Precision = Literal["fp32", "bf16"]


def device(index: int = 0) -> torch.device:
    """One of the visible CUDA devices, the first unless said otherwise; else the CPU."""
    return torch.device("cuda", index) if torch.cuda.is_available() else torch.device("cpu")


def resolve_precision(wanted: str, on: torch.device) -> Precision:
    """What `auto` means here: bf16 where the hardware multiplies it natively, else fp32."""
    if wanted == "auto":
        native = torch.cuda.is_bf16_supported(False) if on.type == "cuda" else _cpu_multiplies_bf16()
        return "bf16" if native else "fp32"
    return "bf16" if wanted == "bf16" else "fp32"


def _cpu_multiplies_bf16() -> bool:
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported()) and "bf16" in processor_flags()


def autocast(on: torch.device, precision: Precision) -> Callable[[], AbstractContextManager[object]]:
    """A context in which the forward runs at this precision; weights and losses stay float32."""
    return partial(torch.autocast, on.type, dtype=torch.bfloat16) if precision == "bf16" else nullcontext


def repeatable(on: torch.device) -> bool:
    """Make results repeat on the CPU; returns whether they will.

    On CUDA the cross entropy of images has no deterministic kernel, so there nothing is promised.
    """
    torch.use_deterministic_algorithms(on.type == "cpu")
    return on.type == "cpu"


def name(on: torch.device) -> str:
    """What people call the device, such as `NVIDIA H200` or `AMD EPYC (2 threads)`."""
    if on.type == "cuda":
        return torch.cuda.get_device_name(on)
    return f"{processor_name()} ({torch.get_num_threads()} threads)"


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that the device, or this machine, has no memory left."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)


def peak_memory(on: torch.device) -> int:
    """Bytes of the device that this process has had in use at most; on the CPU, of the machine's memory."""
    if on.type == "cuda":
        return torch.cuda.max_memory_allocated(on)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def keep_freed_memory(*, sparingly: bool = False) -> None:
    """Ask glibc to keep large freed blocks instead of returning them to the system at every step.

    Otherwise each training step faults its activations in anew; keeping them makes a step on the CPU a quarter to
    a third shorter. What is kept has gaps, though: `sparingly` returns blocks of 32 MiB and more, the most that glibc
    keeps of itself; memory is a third less then, and time up to a fifth more. Other platforms and C libraries are left
    alone.
    """
    if sys.platform != "linux" or platform.libc_ver()[0] != "glibc":
        return
    libc = ctypes.CDLL("libc.so.6")
    trim_threshold, mmap_threshold = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of malloc.h
    libc.mallopt(mmap_threshold, 2**25 if sparingly else 2**30)
    libc.mallopt(trim_threshold, 2**30)
