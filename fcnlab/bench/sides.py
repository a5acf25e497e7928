"""One side of a comparison in a process of its own: it trains an epoch whenever it is told to, and says what it took.

    python -m fcnlab.bench.sides

The first line of standard input is its `Setting` as JSON, and every further line asks for an epoch. What is answered,
a line of JSON each, is a `Lap`. Processes of their own have a peak of memory of their own, and their own allocator.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from fcnlab.bench import peer
from fcnlab.data.base import Pair
from fcnlab.errors import RunError

OURS = ("ours fp32", "ours bf16")
PEERS = ("d2l", "torchvision", "smp")
RECOMPUTED = ", recomputed"
"""Ends the name of ours where the backbone up to stride 8 is computed again, so that less memory is needed."""
KEEPING = ", memory kept"
"""Ends the name of a peer that runs with the allocator setting that ours has."""


def is_ours(side: str) -> bool:
    """Whether a side is one of ours."""
    return side.removesuffix(RECOMPUTED) in OURS


@dataclass(frozen=True)
class Setting:
    """What a side trains: a name of OURS or PEERS, with or without `RECOMPUTED` or `KEEPING` behind it, and on what.

    Attributes:
        backbone: timm's name, of those that benchmarks/peers/networks.py knows.
        head: fcn32s, fcn16s or fcn8s.
        pairs: paths of images and masks.
        threads: CPU threads.
    """

    side: str
    backbone: str
    head: str
    batch: int
    crop: tuple[int, int]
    pairs: tuple[tuple[str, str], ...]
    threads: int


@dataclass(frozen=True)
class Lap:
    """One epoch: how many images, the seconds by the clock and of the CPU, and the peak of memory so far in bytes."""

    images: int
    wall: float
    cpu: float
    peak_memory: int


class Side:
    """A process that trains when it is told to."""

    def __init__(self, setting: Setting) -> None:
        self.name = setting.side
        self._process = subprocess.Popen(
            [sys.executable, "-m", "fcnlab.bench.sides"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._say(json.dumps(asdict(setting)))

    def lap(self) -> Lap:
        """Let it train for an epoch.

        Raises:
            RunError: the process has ended; why stands in its output.
        """
        self._say("epoch")
        assert self._process.stdout is not None
        answer = self._process.stdout.readline()
        if not answer:
            raise RunError(f"the side '{self.name}' of the benchmark has ended; its last output says why")
        return Lap(**json.loads(answer))

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None and self._process.stdout is not None
        with suppress(BrokenPipeError):  # it has ended already, and something was left to be said
            self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def _say(self, line: str) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise RunError(f"the side '{self.name}' of the benchmark has ended; its last output says why") from None


@contextmanager
def sides(settings: Sequence[Setting]) -> Iterator[list[Side]]:
    """All sides, each in its process, until the context ends."""
    started = [Side(setting) for setting in settings]
    try:
        yield started
    finally:
        for side in started:
            side.close()


def epochs(setting: Setting) -> Callable[[], int]:
    """What trains for an epoch at each call in this process, and returns how many images it was.

    Raises:
        RunError: the peer's package is not installed.
    """
    if is_ours(setting.side):
        from fcnlab.bench.ours import epochs as ours

        pairs = [Pair(Path(image).stem, Path(image), Path(mask)) for image, mask in setting.pairs]
        precision = setting.side.removeprefix("ours ").removesuffix(RECOMPUTED)
        again = 8 if setting.side.endswith(RECOMPUTED) else None
        return ours(pairs, precision, setting.backbone, setting.head, setting.batch, setting.crop, again)
    from fcnlab.bench.images import CLASSES
    from fcnlab.data.palette import palette

    way = peer(f"train_{setting.side.removesuffix(KEEPING)}")
    net = peer("networks").FCN(setting.backbone, setting.head, CLASSES)
    files = [(Path(image), Path(mask)) for image, mask in setting.pairs]
    trains: Callable[[], int] = way.epochs(net, files, setting.crop, setting.batch, palette()[:CLASSES].tolist())
    return trains


def serve(said: IO[str], answers: IO[str]) -> None:
    """Be a side."""
    import torch

    from fcnlab.training import hardware

    given: dict[str, Any] = json.loads(said.readline())
    given |= {"crop": tuple(given["crop"]), "pairs": tuple(map(tuple, given["pairs"]))}
    setting = Setting(**given)
    torch.set_num_threads(setting.threads)
    if is_ours(setting.side) or setting.side.endswith(KEEPING):
        hardware.keep_freed_memory(sparingly=setting.side.endswith(RECOMPUTED))
    train = epochs(setting)
    for _ in said:
        wall, cpu = time.perf_counter(), time.process_time()
        images = train()
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        peak = hardware.peak_memory(torch.device("cpu"))
        print(json.dumps(asdict(Lap(images, wall, cpu, peak))), file=answers, flush=True)


if __name__ == "__main__":
    to_the_driver = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever a library prints must not reach the driver's ears
    serve(sys.stdin, to_the_driver)
