"""The device that trains: which one, at which precision, and whether its results repeat."""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Literal

import torch

from fcnlab.errors import RunError
from fcnlab.processor import get_processor_flags, get_processor_name
from fcnlab.settings import DEVICE_VARIABLE

Precision = Literal["fp32", "tf32", "bf16", "fp16"]

# cuBLAS reads this when its first handle is made. Deterministic training needs a fixed workspace; this one is as large
# as the workspace that PyTorch gives cuBLAS on recent cards anyway.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


def select_device(index: int = 0) -> torch.device:
    """Return the device to train on.

    Args:
        index: which of the visible CUDA devices to use.

    Returns:
        `cuda:<index>` where torch finds a CUDA device and `FCNLAB_DEVICE` is not `cpu`, else the CPU.

    Raises:
        RunError: `FCNLAB_DEVICE` is `cuda` and torch finds no CUDA device, or it is neither `cpu` nor `cuda`.
    """
    wanted = os.environ.get(DEVICE_VARIABLE, "")
    if wanted not in ("", "cpu", "cuda"):
        raise RunError(f"{DEVICE_VARIABLE}: '{wanted}' is no device; use cpu or cuda")
    if wanted != "cpu" and torch.cuda.is_available():
        return torch.device("cuda", index)
    if wanted == "cuda":
        raise RunError(
            f"a CUDA device is wanted, but torch {torch.__version__} finds none; check the driver with nvidia-smi, "
            "install a CUDA build of torch, or use --device cpu"
        )
    return torch.device("cpu")


def resolve_device(name: str | None) -> torch.device:
    """Return the device of a `--device` option.

    Args:
        name: `cpu`, `cuda`, or `auto` or None for the device of trials.

    Raises:
        RunError: `name` is `cuda`, and torch finds no CUDA device.
    """
    if name in (None, "auto"):
        return select_device()
    if name == "cuda" and not torch.cuda.is_available():
        raise RunError(f"--device cuda: torch {torch.__version__} finds no CUDA device; check nvidia-smi, or use cpu")
    return torch.device(name)


def synchronize(on: torch.device) -> None:
    """Wait until a device has finished all queued work, so that a clock read afterwards includes it.

    Args:
        on: the device; there is nothing to wait for on the CPU.
    """
    if on.type == "cuda":
        torch.cuda.synchronize(on)


def resolve_precision(wanted: str, on: torch.device) -> Precision:
    """Return the precision that a recipe's `precision` means on a device.

    `auto` is bf16 where the hardware multiplies it natively, else fp16 on CUDA devices with tensor cores, else fp32.
    `tf32` is fp32 where the hardware has no TF32.
    """
    if wanted == "auto":
        if on.type == "cuda":
            if torch.cuda.is_bf16_supported(False):
                return "bf16"
            return "fp16" if torch.cuda.get_device_capability(on) >= (7, 0) else "fp32"
        return "bf16" if _cpu_multiplies_bf16() else "fp32"
    if wanted == "tf32":
        return "tf32" if on.type == "cuda" and torch.cuda.get_device_capability(on) >= (8, 0) else "fp32"
    return "bf16" if wanted == "bf16" else "fp16" if wanted == "fp16" else "fp32"


def _cpu_multiplies_bf16() -> bool:
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported()) and "bf16" in get_processor_flags()


_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


def create_autocast(on: torch.device, precision: Precision) -> Callable[[], AbstractContextManager[object]]:
    """Return a context in which the forward pass runs at this precision; weights and losses stay float32.

    It also switches TF32 in float32 convolutions and matrix products on for `tf32`, and off for all others: PyTorch
    leaves it on in convolutions, which would make `fp32` something else on CUDA than on the CPU.
    """
    if on.type == "cuda":
        # By these flags and not by `fp32_precision`: parts of PyTorch read them, and refuse to where they are mixed.
        torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
        torch.backends.cudnn.allow_tf32 = precision == "tf32"
    return partial(torch.autocast, on.type, dtype=_AUTOCAST[precision]) if precision in _AUTOCAST else nullcontext


def create_grad_scaler(on: torch.device, precision: Precision) -> torch.amp.GradScaler | None:
    """Return the loss scaler that fp16 training needs (Micikevicius et al., ICLR 2018); None for other precisions."""
    return torch.amp.GradScaler(on.type) if precision == "fp16" else None


def configure_determinism(on: torch.device, *, deterministic: bool = False) -> bool:
    """Make results repeat bit for bit: always on the CPU, on CUDA where `deterministic` asks for it.

    On CUDA that restricts cuDNN, cuBLAS and PyTorch to deterministic algorithms, which are slower; an operator that
    has none raises an error.

    Returns:
        Whether results repeat.
    """
    repeats = on.type == "cpu" or deterministic
    torch.use_deterministic_algorithms(repeats)
    if on.type == "cuda":
        torch.backends.cudnn.deterministic = deterministic
        torch.backends.cudnn.benchmark = False
    # Filling every new tensor with NaN finds reads of memory that was not written; it costs a pass over each of them.
    torch.utils.deterministic.fill_uninitialized_memory = on.type == "cpu"  # type: ignore[attr-defined]
    return repeats


def get_device_name(on: torch.device) -> str:
    """What people call the device, such as `NVIDIA H200` or `AMD EPYC (2 threads)`."""
    if on.type == "cuda":
        return torch.cuda.get_device_name(on)
    return f"{get_processor_name()} ({torch.get_num_threads()} threads)"


_OUT_OF_MEMORY = (
    "DefaultCPUAllocator",
    "CUDA error: out of memory",
    "CUDA out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "DEVICE_ALLOCATION_FAILED",  # cuDNN 9: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED
    "unable to find an engine",  # cuDNN without memory for any algorithm's workspace
    "Cuda failure 2 'out of memory'",  # NCCL
    "Cuda failure 'out of memory'",
)
"""Parts of the messages with which PyTorch and the libraries below it report that memory ran out."""


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error, or the one that it was raised from, reports that the device or the machine is full."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    if isinstance(error, RuntimeError) and any(part.lower() in str(error).lower() for part in _OUT_OF_MEMORY):
        return True
    return error.__cause__ is not None and is_out_of_memory(error.__cause__)


def reset_peak_memory(on: torch.device) -> None:
    """Start the measurement of `peak_memory` again; the CPU's peak is that of the whole process and cannot be reset."""
    if on.type == "cuda":
        torch.cuda.init()  # before anything was allocated there are no statistics to reset
        torch.cuda.reset_peak_memory_stats(on)


def get_peak_memory(on: torch.device) -> int:
    """Bytes of the device that this process has had in use at most; on the CPU, of the machine's memory."""
    if on.type == "cuda":
        return torch.cuda.max_memory_allocated(on)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def retain_freed_memory(*, release_large_blocks: bool = False) -> None:
    """Make glibc keep large freed blocks instead of returning them to the system after every step.

    Returned memory has to be mapped in again by the next step; keeping it makes a step on the CPU a quarter to a third
    shorter, at the price of fragmentation. Other platforms and C libraries are not changed.

    Args:
        release_large_blocks: return blocks of 32 MiB and more. Memory is a third less, time up to a fifth more.
    """
    if sys.platform != "linux" or platform.libc_ver()[0] != "glibc":
        return
    libc = ctypes.CDLL("libc.so.6")
    trim_threshold, mmap_threshold = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of malloc.h
    libc.mallopt(mmap_threshold, 2**25 if release_large_blocks else 2**30)
    libc.mallopt(trim_threshold, 2**30)
