"""One side of a comparison in its own process, which trains on request and reports the time.

    python -m benchmarks.speed.sides

The first line of standard input is its `Setting` as JSON. When the side is built, it answers with a line of JSON that
describes it. Every further line of input is a number of seconds: the side trains whole epochs until that much time has
passed, at least one, and answers with a `Lap`, one line of JSON. Each process has its own peak of memory and its own
allocator.
"""

from __future__ import annotations

import faulthandler
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any, Literal

from benchmarks.processes import child_environment, end_with_parent
from benchmarks.speed import loader_options, peer
from fcnlab.data.datasets.base import Pair
from fcnlab.errors import RunError

OURS = ("ours fp32", "ours bf16")
TF32 = "ours tf32"
"""fcnlab with TF32 in float32 convolutions and products, on CUDA only."""
PEERS = ("d2l", "torchvision", "smp")
RECOMPUTED = ", recomputed"
"""Ends the name of a side of fcnlab with activation checkpointing up to stride 8, which needs less memory."""
KEEPING = ", memory kept"
"""Ends the name of a peer that runs with the allocator setting of fcnlab."""
COMPILED = ", compiled"
"""Ends the name of a side of fcnlab whose network is compiled, on CUDA only."""
CHANNELS_LAST = ", channels last"
"""Ends the name of a peer whose network is in channels-last layout, which its users do not set."""

ENDING = 20.0
"""Seconds that a side has to end by itself before it is killed."""
STACKS = signal.SIGUSR1
"""Signal at which a side writes the stacks of its threads to its error output."""
WRITING = 0.5
"""Seconds that writing them may take."""
OUTPUT = 4000
"""Characters of the end of a side's error output in an error message."""


def is_ours(side: str) -> bool:
    """Return whether a side is one of fcnlab.

    Args:
        side: name of the side.
    """
    return side.removesuffix(RECOMPUTED).removesuffix(COMPILED) in (*OURS, TF32)


def peer_name(side: str) -> str:
    """Return the name of the peer that a side runs, as in PEERS.

    Args:
        side: name of the side.
    """
    return side.removesuffix(KEEPING).removesuffix(CHANNELS_LAST)


@dataclass(frozen=True)
class Setting:
    """The training of a side.

    Attributes:
        side: a name of OURS or PEERS, optionally with one of the endings.
        backbone: timm's name; benchmarks/peers/networks.py must have it.
        head: fcn32s, fcn16s or fcn8s.
        batch: images per step.
        crop: height and width in pixels.
        pairs: paths of images and masks.
        threads: CPU threads.
        device: `cpu` or `cuda`.
        workers: processes that load the data of a peer.
        bf16: train a peer in bfloat16 autocast; the name of a side of fcnlab has its precision.
        batch_norm: batch norm of the backbone, `train` or `frozen`.
    """

    side: str
    backbone: str
    head: str
    batch: int
    crop: tuple[int, int]
    pairs: tuple[tuple[str, str], ...]
    threads: int
    device: str = "cpu"
    workers: int = 0
    bf16: bool = False
    batch_norm: Literal["train", "frozen"] = "train"

    @property
    def data(self) -> list[Pair]:
        """Return the files, with ids in their order."""
        return [Pair(f"{number:05}", Path(image), Path(mask)) for number, (image, mask) in enumerate(self.pairs)]


@dataclass(frozen=True)
class Lap:
    """Images, wall-clock and CPU seconds of one request, and the peak of memory so far in bytes.

    The memory is that of the device on CUDA, and that of the process on the CPU.
    """

    images: int
    wall: float
    cpu: float
    peak_memory: int

    @property
    def images_per_s(self) -> float:
        """Return the images per second of the clock."""
        return self.images / self.wall


class Side:
    """A process that trains on request."""

    def __init__(self, setting: Setting, cache: str | None = None, timeout: float | None = None) -> None:
        """Start the process.

        Args:
            setting: configuration of the training.
            cache: folder of decoded samples; by default the user's.
            timeout: seconds that it may take to answer; None waits without end.
        """
        self.name = setting.side
        self._about: dict[str, Any] | None = None
        self._timeout = timeout
        self._errors = tempfile.TemporaryFile("w+b")  # noqa: SIM115 - closed with the process
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.speed.sides"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env=child_environment() | ({} if cache is None else {"FCNLAB_CACHE": cache}),
            process_group=0,  # with the processes that load its data
        )
        self._send(json.dumps(asdict(setting)))

    def about(self) -> dict[str, Any]:
        """Wait until the side is built, and return its description.

        Raises:
            RunError: the process has ended, or does not answer in time; the message has the end of its output.
        """
        if self._about is None:
            self._about = json.loads(self._answer())
        return self._about

    def lap(self, seconds: float = 0.0) -> Lap:
        """Train for a number of seconds, rounded up to whole epochs, at least one.

        Args:
            seconds: seconds of training.

        Raises:
            RunError: the process has ended, or does not answer in time; the message has the end of its output.
        """
        self._send(json.dumps(seconds))
        self.about()
        return Lap(**json.loads(self._answer()))

    def end_input(self) -> None:
        """Ask the process to end, without waiting for it."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # it has ended already, and some input was still buffered
            self._process.stdin.close()

    def close(self, *, at_once: bool = False) -> None:
        """End the process; kill it if it does not exit. A second call does nothing.

        Args:
            at_once: kill it without waiting, since the benchmark has been interrupted.
        """
        assert self._process.stdout is not None
        self.end_input()
        try:
            self._process.wait(0.0 if at_once else ENDING)
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._process.stdout.close()
        self._errors.close()

    def _send(self, line: str) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._ended() from None

    def _answer(self) -> str:
        """Return the next line; there is never more than one, so nothing waits in the buffer of the stream."""
        assert self._process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            if not selector.select(self._timeout):
                raise self._hangs()
        line = self._process.stdout.readline()
        if not line:
            raise self._ended()
        return line

    def _ended(self) -> RunError:
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(ENDING)
        return RunError(f"the side '{self.name}' of the benchmark has ended:\n{self._output()}")

    def _hangs(self) -> RunError:
        self._process.send_signal(STACKS)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(WRITING)
        about = f"the side '{self.name}' of the benchmark has not answered for {self._timeout:.0f} s"
        return RunError(f"{about}:\n{self._output()}\n{about}")

    def _output(self) -> str:
        self._errors.seek(0)
        return self._errors.read().decode(errors="replace")[-OUTPUT:].strip()


@contextmanager
def sides(settings: Sequence[Setting], cache: str | None = None, timeout: float | None = None) -> Iterator[list[Side]]:
    """Start all sides, each in its own process, and end them with the context.

    Args:
        settings: settings of the sides.
        cache: folder of decoded samples; by default a temporary one for all of them.
        timeout: as in `Side`.
    """
    with ExitStack() as stack:
        folder = cache or stack.enter_context(tempfile.TemporaryDirectory(prefix="fcnlab-bench-"))
        started = []
        for setting in settings:
            side = Side(setting, folder, timeout)
            stack.push(partial(_close, side))
            started.append(side)
        yield started


def _close(side: Side, kind: type[BaseException] | None, *_: object) -> None:
    side.close(at_once=kind is not None)


class Closed(Exception):
    """No further laps are requested."""


class Laps:
    """Times the epochs of this process on request."""

    def __init__(self, asked: IO[str], answers: IO[str], device: str) -> None:
        """Connect to the requests and the answers.

        Args:
            asked: stream of requests, as the module describes.
            answers: stream to which answers are written.
            device: `cpu` or `cuda`.
        """
        import torch

        self._asked, self._answers = asked, answers
        self._device = torch.device(device)

    def begin(self, **about: Any) -> None:
        """Answer with a description of the side, which is built, and wait for the first request.

        Args:
            about: the description.

        Raises:
            Closed: the input has ended.
        """
        self._write(about)
        self._wait()

    def after_epoch(self, images: int) -> None:
        """Count the images of an epoch, and answer if the lap is complete.

        Args:
            images: number of images of the epoch.

        Raises:
            Closed: the input has ended.
        """
        from fcnlab.training import hardware

        hardware.synchronize(self._device)
        self._images += images
        wall = time.perf_counter() - self._wall
        if wall < self._seconds:
            return
        cpu = time.process_time() - self._cpu
        self._write(asdict(Lap(self._images, wall, cpu, hardware.get_peak_memory(self._device))))
        self._wait()

    def _wait(self) -> None:
        line = self._asked.readline()
        if not line:
            raise Closed
        self._seconds, self._images = float(json.loads(line)), 0
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def _write(self, answer: dict[str, Any]) -> None:
        print(json.dumps(answer), file=self._answers, flush=True)


def train(setting: Setting, begin: Callable[..., None], after_epoch: Callable[[int], None]) -> None:
    """Build a side in this process and train until `after_epoch` or `begin` raises an exception.

    Args:
        setting: the training.
        begin: called once, when all is built, with a description of the side as keyword arguments.
        after_epoch: called with the number of images of each epoch.

    Raises:
        RunError: the peer's package is not installed.
    """
    import torch

    if is_ours(setting.side):
        from benchmarks.speed import ours

        name = setting.side.removesuffix(RECOMPUTED)
        recipe = ours.recipe(
            setting.batch,
            setting.crop,
            name.removesuffix(COMPILED).removeprefix("ours "),
            batch_norm=setting.batch_norm,
            recompute=setting.side.endswith(RECOMPUTED),
            compiled=name.endswith(COMPILED),
        )
        device = torch.device(setting.device)
        ours.train(setting.data, recipe, setting.backbone, setting.head, device, begin, after_epoch)
        return
    from benchmarks.speed.images import CLASSES
    from fcnlab.data.datasets.palette import voc_palette

    way = peer(f"train_{peer_name(setting.side)}")
    net = peer("networks").FCN(setting.backbone, setting.head, CLASSES, setting.batch_norm == "frozen")
    if setting.side.endswith(CHANNELS_LAST):
        net = net.to(memory_format=torch.channels_last)
    files = [(Path(image), Path(mask)) for image, mask in setting.pairs]
    colors = voc_palette()[:CLASSES].tolist()
    loading = loader_options(setting.device, setting.workers)
    epoch: Callable[[], int] = way.epochs(
        net, files, setting.crop, setting.batch, colors, loading, setting.device, setting.bf16
    )
    begin(augmentation=getattr(way, "AUGMENTATION", None))
    while True:
        after_epoch(epoch())


def serve(asked: IO[str], answers: IO[str]) -> None:
    """Run a side until its input ends.

    Args:
        asked: stream of requests, as the module describes.
        answers: stream to which answers are written.
    """
    import torch

    from fcnlab.training import hardware

    given: dict[str, Any] = json.loads(asked.readline())
    given |= {"crop": tuple(given["crop"]), "pairs": tuple(map(tuple, given["pairs"]))}
    setting = Setting(**given)
    torch.set_num_threads(setting.threads)
    if is_ours(setting.side) or setting.side.endswith(KEEPING):
        hardware.retain_freed_memory(release_large_blocks=setting.side.endswith(RECOMPUTED))
    laps = Laps(asked, answers, setting.device)
    with suppress(Closed):
        train(setting, laps.begin, laps.after_epoch)


if __name__ == "__main__":
    faulthandler.register(STACKS)
    end_with_parent()
    to_the_driver = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # output of libraries must not mix with the answers
    serve(sys.stdin, to_the_driver)
