"""What a timing was taken on: the machine, versions, threads."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fcnlab.processor import get_processor_name
from fcnlab.training.hardware import synchronize

VERSIONS = ("fcnlab", "torch", "torchvision", "numpy", "pillow")


@dataclass(frozen=True)
class Machine:
    """What a timing was taken on.

    Attributes:
        processor: the CPU's name.
        system: operating system, its architecture, and Python.
        cores: CPU cores that this process may use.
        threads: CPU threads that torch uses.
        gpu: the first CUDA device's name; None where there is none.
        versions: of the packages that do the work.
        load: average number of processes that wanted a core over the last minute; None where it cannot be had.
    """

    processor: str
    system: str
    cores: int
    threads: int
    gpu: str | None
    versions: dict[str, str]
    load: float | None

    def to_json(self) -> dict[str, Any]:
        """All of it as plain values."""
        return vars(self)

    def lines(self) -> list[str]:
        """The same to read."""
        cores = f"{self.cores} core{'s' * (self.cores != 1)}, {self.threads} thread{'s' * (self.threads != 1)}"
        load = f", load {self.load:.1f}" if self.load is not None else ""
        where = f"{self.processor}, {cores}{load}, {self.system}"
        return [where, *([self.gpu] if self.gpu else []), ", ".join(f"{k} {v}" for k, v in self.versions.items())]


def machine(*peers: str) -> Machine:
    """Describe this machine now. `peers` are packages beside VERSIONS whose versions are wanted."""
    return Machine(
        processor=get_processor_name(),
        system=f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        threads=torch.get_num_threads(),
        gpu=torch.cuda.get_device_name(0) if torch.cuda.is_available() else None,
        versions={name: _version(name) for name in (*VERSIONS, *peers)},
        load=os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
    )


Work = Callable[[], int]
"""Does some work and returns the number of images that it was."""


def synchronized(work: Work, device: torch.device) -> Work:
    """Return `work` followed by `synchronize`, to be timed."""

    def whole() -> int:
        images = work()
        synchronize(device)
        return images

    return whole


def device_gemm_peak(device: torch.device, precision: torch.dtype, *, side: int = 8192, repeats: int = 10) -> float:
    """Return the largest number of floating-point operations per second of a CUDA device in a product of matrices.

    Args:
        device: a CUDA device.
        precision: type of both matrices, which are square with sides of `side`.
        side: rows and columns.
        repeats: how many products are timed, each by CUDA events; the fastest counts.
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


def gemm_peak(precision: torch.dtype, *, side: int = 2048, repeats: int = 6) -> float:
    """The most floating-point operations that a product of two square matrices has made here in a second of the CPU.

    Of one core, then, and whatever else the machine does meanwhile. The product is asked for as such and as a
    convolution of 1x1: other libraries serve the two, and on some processors the one is far behind the other.
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
    """Let torch use this many CPU threads within the context."""
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
