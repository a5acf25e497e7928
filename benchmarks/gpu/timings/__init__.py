"""The sections of `bench.py`, one module each with a function `measure(context)`, and functions that they share.

Nothing here imports torch or fcnlab at the top level, so that a missing package fails its section only.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.gpu.settings import Settings

if TYPE_CHECKING:
    import torch

    from fcnlab.data.datasets.base import Pair

WORKERS = 8
SHARED_MEMORY = 3 * 2**30
"""Bytes of /dev/shm that eight workers with two batches each need, with room to spare."""
OVERRUN = 5.0
"""Seconds beyond the allowance after which a process that a section has started is killed."""


@dataclass(frozen=True)
class Section:
    """A section and its share of the time.

    Attributes:
        name: name of the module.
        weight: its share of the budget, relative to those of the others.
        minimum: seconds that it needs; with less time left it is not started.
        images: it needs the generated images.
    """

    name: str
    weight: float
    minimum: float
    images: bool = True


SECTIONS = (
    Section("environment", 12, 10, images=False),
    Section("step", 40, 32),
    Section("evaluation", 25, 25),
    Section("augmentation", 20, 20),
    Section("trial", 35, 35),
    Section("training", 165, 80),
    Section("colocation", 60, 60),
    Section("grid", 90, 75),
)
"""All sections in their order: the short ones before training, which takes all the time that it is given."""


@dataclass(frozen=True)
class Sizes:
    """The sizes of all measurements.

    Attributes:
        crop: height and width of a training image.
        batch: images per training step.
        rounds: number of repetitions of each measurement.
        train, val: images of the generated splits.
        epoch: maximum number of images of the training split with which training is measured.
        sizes: heights and widths of the generated images, as an option of `images.py`; None for VOC's.
        backbones: backbones of the two sizes of networks.
        lap: minimum seconds that a side trains in each round.
        gemm: rows and columns of the matrices.
        copy: bytes of the tensors that are copied.
    """

    crop: tuple[int, int] = (320, 480)
    batch: int = 32
    rounds: int = 3
    train: int = 1464
    val: int = 1449
    epoch: int = 1024
    sizes: str | None = None
    backbones: tuple[str, str] = ("resnet18", "resnet50")
    lap: float = 2.0
    gemm: int = 8192
    copy: int = 2**31


SMOKE = Sizes(
    crop=(64, 64), batch=2, rounds=1, train=24, val=4, epoch=4, sizes="96x128", lap=0.0, gemm=64, copy=2**16,
    backbones=("resnet18", "resnet18"),
)  # fmt: skip


@dataclass(frozen=True)
class Context(Settings):
    """The arguments of a section. The scratch folder holds files of all sections, such as fcnlab's cache.

    Attributes:
        name: name of the section.
        allowance: seconds that the section may take.
        peers: peers of training that are compared.
    """

    name: str = ""
    allowance: float = 0.0
    peers: Sequence[str] = ()
    began: float = field(default_factory=time.monotonic)

    @property
    def sizes(self) -> Sizes:
        """Return the sizes of measurements."""
        return SMOKE if self.smoke else Sizes()

    @property
    def left(self) -> float:
        """Return the remaining seconds of the allowance; infinity in a smoke run."""
        return float("inf") if self.smoke else self.allowance - (time.monotonic() - self.began)

    @property
    def workers(self) -> int:
        """Return the number of processes that load the data of a peer: eight on CUDA, as its users have.

        It is zero if /dev/shm, through which they pass their batches, is too small, as in many containers.
        """
        enough = (shared_memory() or 0) >= SHARED_MEMORY
        return WORKERS if self.cuda and enough else 0

    @property
    def data(self) -> Path:
        """Return the data root with the generated images."""
        return self.scratch / "data"

    @property
    def torch_device(self) -> torch.device:
        """Return the device as torch names it."""
        import torch

        return torch.device(self.device)

    def environment(self) -> dict[str, str]:
        """Return the environment of processes that run the section."""
        return super().environment() | ({"OMP_NUM_THREADS": "1"} if self.smoke else {})

    def save(self, result: dict[str, Any]) -> None:
        """Write the result so far, so that it is kept if the section is killed.

        Args:
            result: JSON-able measurements.
        """
        self.keep(self.name, result)

    def files(self, split: str) -> list[tuple[Path, Path]]:
        """Return the image and the mask of all generated samples of a split.

        Args:
            split: `train` or `val`.
        """
        lines = (self.data / f"{split}.txt").read_text(encoding="utf-8").splitlines()
        return [(Path(image), Path(mask)) for image, mask in (line.split("\t") for line in lines)]

    def pairs(self, count: int | None = None) -> list[Pair]:
        """Return the first training samples of at least the size of a crop; d2l's code leaves out smaller ones.

        Args:
            count: maximum number of samples; None for all.
        """
        from PIL import Image

        from fcnlab.data.datasets.base import Pair

        found = []
        for image, mask in self.files("train"):
            with Image.open(image) as opened:
                if opened.height >= self.sizes.crop[0] and opened.width >= self.sizes.crop[1]:
                    found.append(Pair(image.stem, image, mask))
            if len(found) == count:
                break
        return found

    def process(self, *arguments: str | Path, check: bool = True) -> tuple[float, str, int]:
        """Run a Python process to its end, at most for the remaining time and a few seconds.

        Args:
            arguments: arguments of Python.
            check: raise an error if it fails.

        Returns:
            Wall-clock seconds, its whole output, and its exit code.

        Raises:
            RuntimeError: it failed or did not end; the message has the end of its output.
        """
        command = [sys.executable, *map(str, arguments)]
        began = time.perf_counter()
        try:
            done = subprocess.run(
                command,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=None if self.smoke else max(self.left, 0) + OVERRUN,
            )
        except subprocess.TimeoutExpired as error:
            output = (error.output or b"").decode(errors="replace")[-2000:]
            raise RuntimeError(f"{command} has not ended after {error.timeout:.0f} s:\n{output}") from None
        output = done.stdout.decode(errors="replace")
        if check and done.returncode:
            raise RuntimeError(f"{command} failed with exit code {done.returncode}:\n{output[-3000:]}")
        return time.perf_counter() - began, output, done.returncode


def shared_memory() -> int | None:
    """Return the free bytes of /dev/shm, where DataLoader workers put batches; None if it does not exist."""
    try:
        found = os.statvfs("/dev/shm")
    except OSError:
        return None
    return found.f_bavail * found.f_frsize


@dataclass(frozen=True)
class Spread:
    """The median, the minimum and the maximum of measurements."""

    median: float
    min: float
    max: float
    rounds: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Summarize measurements.

        Args:
            values: at least one.
        """
        return cls(statistics.median(values), min(values), max(values), len(values))

    def json(self) -> dict[str, float]:
        """Return plain values."""
        return asdict(self)

    def text(self, digits: int = 1, factor: float = 1.0) -> str:
        """Return all three as text.

        Args:
            digits: digits after the decimal point.
            factor: factor of all values.
        """
        return (
            f"{factor * self.median:,.{digits}f} ({factor * self.min:,.{digits}f} to {factor * self.max:,.{digits}f})"
        )


def rounds(work: Callable[[], Any], device: torch.device, count: int, iterations: int = 1) -> Spread:
    """Return the seconds of one iteration, measured in several rounds after one that does not count.

    On CUDA the time is that between two events of the current stream, on the CPU wall-clock time.

    Args:
        work: one iteration.
        device: its device.
        count: number of rounds.
        iterations: iterations of a round.
    """
    import torch

    work()
    seconds = []
    for _ in range(count):
        if device.type == "cuda":
            began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            torch.cuda.synchronize(device)
            began.record()
            for _ in range(iterations):
                work()
            ended.record()
            ended.synchronize()
            seconds.append(began.elapsed_time(ended) / 1e3 / iterations)
        else:
            start = time.perf_counter()
            for _ in range(iterations):
                work()
            seconds.append((time.perf_counter() - start) / iterations)
    return Spread.of(seconds)


def repeated(work: Callable[[], int], device: torch.device, count: int, at_least: float) -> Spread:
    """Return images per second of work that is repeated in each round for a number of seconds.

    The clock is read after a synchronization.

    Args:
        work: does the work and returns its number of images.
        device: its device.
        count: number of rounds.
        at_least: minimum seconds of a round.
    """
    from fcnlab.training.hardware import synchronize

    work()
    synchronize(device)
    rates = []
    for _ in range(count):
        images, start = 0, time.perf_counter()
        while True:
            images += work()
            synchronize(device)
            seconds = time.perf_counter() - start
            if seconds >= at_least:
                break
        rates.append(images / seconds)
    return Spread.of(rates)
