"""The conditions of a timing: machine, versions, threads."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

import torch
import torch.nn.functional as F
from torch import Tensor

from fcnlab.constants import Precision
from fcnlab.limits import usable_cores
from fcnlab.processor import get_processor_name
from fcnlab.training.hardware import create_autocast, resolve_precision, synchronize

VERSIONS = ("fcnlab", "torch", "torchvision", "numpy", "pillow")


@dataclass(frozen=True)
class Machine:
    """The conditions of a timing.

    Attributes:
        processor: the CPU's name.
        system: operating system, its architecture, and Python.
        cores: CPU cores that this process may use.
        threads: CPU threads that torch uses.
        gpu: the first CUDA device's name; None without a GPU.
        versions: versions of the packages.
        load: average number of runnable processes over the last minute; None if the system does not provide it.
        instructions: instruction set that torch uses, and its limit if there is one; None in older measurements.
    """

    processor: str
    system: str
    cores: int
    threads: int
    gpu: str | None
    versions: dict[str, str]
    load: float | None
    instructions: str | None = None

    def lines(self) -> list[str]:
        """Return all fields as lines of text."""
        cores = f"{self.cores} core{'s' * (self.cores != 1)}, {self.threads} thread{'s' * (self.threads != 1)}"
        load = f", load {self.load:.1f}" if self.load is not None else ""
        instructions = f", {self.instructions}" if self.instructions is not None else ""
        where = f"{self.processor}{instructions}, {cores}{load}, {self.system}"
        versions = ", ".join(f"{name} {version}" for name, version in self.versions.items())
        return [where, *([self.gpu] if self.gpu else []), versions]


def machine(*peers: str) -> Machine:
    """Describe this machine now.

    Args:
        peers: packages, in addition to VERSIONS, whose versions are included.
    """
    return Machine(
        processor=get_processor_name(),
        system=f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        cores=usable_cores(),
        threads=torch.get_num_threads(),
        gpu=torch.cuda.get_device_name(0) if torch.cuda.is_available() else None,
        versions={name: _version(name) for name in (*VERSIONS, *peers)},
        load=os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        instructions=_instructions(),
    )


def _instructions() -> str:
    """Return the instruction set of torch's kernels, and the limit that the environment sets for oneDNN's."""
    used, limit = torch.backends.cpu.get_cpu_capability(), os.environ.get("ONEDNN_MAX_CPU_ISA")
    return f"{used}, oneDNN limited to {limit}" if limit else used


Work = Callable[[], int]
"""Does some work and returns its number of images."""


def synchronized(work: Work, device: torch.device) -> Work:
    """Return `work` followed by `synchronize`, to be timed.

    Args:
        work: the work to time.
        device: device to synchronize with.
    """

    def whole() -> int:
        images = work()
        synchronize(device)
        return images

    return whole


def measure_gemm_peaks(device: torch.device, *, bf16: bool, side: int | None = None) -> dict[str, float]:
    """Return the largest number of floating-point operations per second in products of matrices, by precision.

    Args:
        device: a CUDA device, or the CPU, on which seconds are those of one core.
        bf16: whether bf16 is included.
        side: rows and columns of the matrices; by default many on CUDA and fewer on the CPU.
    """
    types = {"fp32": torch.float32} | ({"bf16": torch.bfloat16} if bf16 else {})
    if device.type == "cpu":
        return {precision: gemm_peak(of, side=side or 2048) for precision, of in types.items()}
    peaks: dict[str, float] = {}
    precisions: tuple[Precision, ...] = ("bf16", "tf32", "fp32")
    for precision in precisions[not bf16 :]:
        with create_autocast(device, precision)():
            peaks[precision] = device_gemm_peak(device, types.get(precision, torch.float32), side=side or 8192)
    return peaks


def device_gemm_peak(device: torch.device, precision: torch.dtype, *, side: int = 8192, repeats: int = 10) -> float:
    """Return the largest number of floating-point operations per second of a CUDA device in a product of matrices.

    Args:
        device: a CUDA device.
        precision: type of both matrices, which are square with sides of `side`.
        side: rows and columns.
        repeats: number of products that are timed, each by CUDA events; the fastest counts.
    """
    a, b = (torch.randn(side, side, device=device, dtype=precision) for _ in range(2))
    product = torch.empty_like(a)
    for _ in range(3):
        torch.mm(a, b, out=product)
    seconds = []
    for _ in range(repeats):
        began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        began.record()
        torch.mm(a, b, out=product)
        ended.record()
        ended.synchronize()
        seconds.append(began.elapsed_time(ended) / 1e3)
    return 2 * side**3 / min(seconds)


def multiplies_bf16(device: torch.device) -> bool:
    """Return whether a device multiplies bfloat16 natively; without that, a product takes minutes instead of seconds.

    Args:
        device: a CUDA device or the CPU.
    """
    return resolve_precision("auto", device) == "bf16"


def gemm_peak(precision: torch.dtype, *, side: int = 2048, repeats: int = 6) -> float:
    """Return the largest number of floating-point operations per CPU second in a product of square matrices.

    It refers to one core under the current load of the machine. The product is computed as such and as a 1x1
    convolution: different libraries serve the two, and on some processors one is much slower than the other.

    Args:
        precision: type of both matrices.
        side: rows and columns.
        repeats: number of products of each kind; the fastest counts.
    """
    a, b = (torch.randn(side, side).to(precision) for _ in range(2))
    image = a.view(1, side, side // 32, 32).contiguous(memory_format=torch.channels_last)
    kernel = b.view(side, side, 1, 1).contiguous(memory_format=torch.channels_last)
    ways: tuple[Callable[[], Tensor], ...] = (lambda: a @ b, lambda: F.conv2d(image, kernel))
    seconds = []
    for way in repeats * ways:
        began = time.process_time()
        way()
        seconds.append(time.process_time() - began)
    return 2 * side**3 / min(seconds)


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Let torch use this many CPU threads within the context.

    Args:
        count: number of threads.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
