"""Selection of the training device, its precision, determinism and memory."""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from itertools import chain
from typing import TypeVar

import torch
from torch import nn

from fcnlab.console import format_count
from fcnlab.constants import Precision
from fcnlab.errors import RunError
from fcnlab.processor import get_processor_name
from fcnlab.settings import DEVICE_VARIABLE
from fcnlab.training.precision_probe import has_bf16, is_bf16_faster

Model = TypeVar("Model", bound=nn.Module)

# cuBLAS reads this when its first handle is created. Deterministic training needs a workspace of fixed size; this size
# is the default of PyTorch on recent GPUs.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


def select_device(index: int = 0) -> torch.device:
    """Return the device to train on.

    Args:
        index: index of the visible CUDA device to use.

    Returns:
        `cuda:<index>` if torch finds a CUDA device and `FCNLAB_DEVICE` is not `cpu`, else the CPU.

    Raises:
        RunError: `FCNLAB_DEVICE` is `cuda` and torch finds no CUDA device, or it is neither `cpu` nor `cuda`.
    """
    requested = os.environ.get(DEVICE_VARIABLE, "")
    if requested not in ("", "cpu", "cuda"):
        raise RunError(f"{DEVICE_VARIABLE}: '{requested}' is not a device; use cpu or cuda")
    if requested != "cpu" and torch.cuda.is_available():
        return torch.device("cuda", index)
    if requested == "cuda":
        raise RunError(
            f"a CUDA device is required, but torch {torch.__version__} finds none; check the driver with nvidia-smi, "
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


def move_to_device(model: Model, device: torch.device) -> Model:
    """Move a model to a device, with the weights of 2-d layers in channels-last format, which convolutions prefer.

    Args:
        model: changed in place.
        device: the device.

    Returns:
        The model.
    """
    model.to(device)
    for tensor in chain(model.parameters(), model.buffers()):
        if tensor.dim() == 4:  # `Module.to(memory_format=...)` also converts 5-d weights, which do not have this format
            tensor.data = tensor.data.to(memory_format=torch.channels_last)
    return model


def synchronize(device: torch.device) -> None:
    """Wait until a device has finished all queued work, so that a clock read afterwards includes it.

    Args:
        device: device to wait for; on the CPU this has no effect.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def resolve_precision(precision: str, device: torch.device) -> Precision:
    """Return the precision that a recipe's `precision` means on a device.

    Args:
        precision: `auto` is bf16 on CUDA devices that multiply it natively, else fp16 on those with tensor cores, else
            fp32; on the CPU it is bf16 where that is faster, else fp32. `tf32` is fp32 if the hardware has no TF32.
        device: device that trains.
    """
    if precision == "auto":
        if device.type == "cuda":
            capability = torch.cuda.get_device_capability(device)
            return "bf16" if capability >= (8, 0) else "fp16" if capability >= (7, 0) else "fp32"
        return "bf16" if is_bf16_faster() else "fp32"
    if precision == "tf32":
        return "tf32" if device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0) else "fp32"
    return "bf16" if precision == "bf16" else "fp16" if precision == "fp16" else "fp32"


def resolve_recorded_precision(precision: str, recorded: Mapping[str, Precision], device: torch.device) -> Precision:
    """Return the precision in which a trained network is evaluated on a device.

    It is that of the training on the same type of device, since `auto` may give another one: on the CPU it depends on
    the number of threads, on CUDA on the GPU. A precision that the device would emulate is not taken from the training.

    Args:
        precision: the recipe's `precision`, which is resolved on another type of device.
        recorded: the precision of the training by type of device; empty if it is not known.
        device: device that evaluates.
    """
    trained = recorded.get(device.type)
    return trained if trained is not None and _is_native(trained, device) else resolve_precision(precision, device)


def _is_native(precision: Precision, device: torch.device) -> bool:
    """Return True if a device computes in a precision without emulating it."""
    if device.type == "cuda" and precision != "fp32":
        return torch.cuda.get_device_capability(device) >= ((7, 0) if precision == "fp16" else (8, 0))
    return precision == "fp32" or (precision == "bf16" and has_bf16())


_AUTOCAST_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def create_autocast(device: torch.device, precision: Precision) -> Callable[[], AbstractContextManager[object]]:
    """Return a factory of contexts in which the forward pass runs at a precision; weights and losses stay float32.

    It also turns TF32 in float32 convolutions and matrix products on for `tf32`, and off for all other precisions:
    PyTorch leaves it on in convolutions, so that `fp32` would mean something else on CUDA than on the CPU.

    Args:
        device: device that runs the forward pass.
        precision: a precision that the device supports.
    """
    if device.type == "cuda":
        # PyTorch has two interfaces for TF32 and raises an error where they are mixed; parts of it read these flags.
        torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
        torch.backends.cudnn.allow_tf32 = precision == "tf32"
    dtype = _AUTOCAST_DTYPES.get(precision)
    return nullcontext if dtype is None else partial(torch.autocast, device.type, dtype=dtype)


def create_grad_scaler(device: torch.device, precision: Precision) -> torch.amp.GradScaler | None:
    """Return the loss scaler for fp16 training (Micikevicius et al., ICLR 2018), or None for other precisions.

    Args:
        device: device that trains.
        precision: precision of the forward pass.
    """
    return torch.amp.GradScaler(device.type) if precision == "fp16" else None


def configure_determinism(device: torch.device, *, deterministic: bool = False) -> bool:
    """Configure PyTorch so that results are reproducible bit for bit: always on the CPU, on CUDA on request.

    Args:
        device: device that trains.
        deterministic: restrict cuDNN, cuBLAS and PyTorch to deterministic algorithms on CUDA. They are slower, and an
            operator that has none raises an error.

    Returns:
        True if results are reproducible.
    """
    reproducible = device.type == "cpu" or deterministic
    torch.use_deterministic_algorithms(reproducible)
    if device.type == "cuda":
        torch.backends.cudnn.deterministic = deterministic
        torch.backends.cudnn.benchmark = False
    # Filling every new tensor with NaN reveals reads of uninitialized memory, but costs a pass over each tensor.
    torch.utils.deterministic.fill_uninitialized_memory = device.type == "cpu"  # type: ignore[attr-defined]
    return reproducible


def get_device_name(device: torch.device) -> str:
    """Return a readable name, such as `NVIDIA H200` or `AMD EPYC (2 threads)`.

    Args:
        device: a CUDA device or the CPU.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{get_processor_name()} ({format_count(torch.get_num_threads(), 'thread')})"


_OUT_OF_MEMORY = (
    "DefaultCPUAllocator",
    "std::bad_alloc",
    "Cannot allocate memory",  # of the system: mapping of a file or a library
    "can't start new thread",  # no address space for its stack
    "CUDA error: out of memory",
    "CUDA out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "DEVICE_ALLOCATION_FAILED",  # cuDNN 9: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED
    "unable to find an engine",  # cuDNN without memory for any algorithm's workspace
    "Cuda failure 2 'out of memory'",  # NCCL
    "Cuda failure 'out of memory'",
)
"""Parts of the messages with which PyTorch and its libraries report that memory is exhausted."""


_ONEDNN_OUT_OF_MEMORY = ("could not create a primitive", "could not execute a primitive")
"""Complete messages of oneDNN without memory; the creation of a `primitive descriptor` fails for other reasons."""


def is_out_of_memory(error: BaseException) -> bool:
    """Return True if an error, or its cause, reports that the memory of the device or the machine is exhausted.

    Args:
        error: an exception of a trial.
    """
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    if isinstance(error, RuntimeError) and str(error).strip() in _ONEDNN_OUT_OF_MEMORY:
        return True
    kinds = (RuntimeError, OSError, ImportError)
    if isinstance(error, kinds) and any(part.lower() in str(error).lower() for part in _OUT_OF_MEMORY):
        return True
    return error.__cause__ is not None and is_out_of_memory(error.__cause__)


def reset_peak_memory(device: torch.device) -> None:
    """Restart the measurement of `get_peak_memory`; on the CPU this has no effect.

    Args:
        device: device that trains.
    """
    if device.type == "cuda":
        torch.cuda.init()  # before the first allocation there are no statistics to reset
        torch.cuda.reset_peak_memory_stats(device)


def get_peak_memory(device: torch.device) -> int:
    """Return the peak memory of this process in bytes: memory of the device, or of the machine for the CPU.

    Args:
        device: device that trains.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
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
