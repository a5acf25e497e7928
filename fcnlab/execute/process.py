"""The `process` executor: worker processes on this machine, one to each GPU or to each share of the cores."""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from fcnlab.execute.base import Ended, Executor
from fcnlab.places import Lab
from fcnlab.spec.config import Recipe
from fcnlab.spec.trial import Trial

MEMORY_OF_A_PROCESS = 2**30
MEMORY_OF_A_PIXEL = 3 * 2**10
"""Bytes that a trial on the CPU is planned with, for itself and for each pixel of a batch.

Measured: a MobileNetV2 FCN-32s peaked at 12.2 GB in fp32 for 32 crops of 320x480 (2.5 kB a pixel), at 8.3 GB in bf16.
"""


@dataclass(frozen=True)
class Slot:
    """A place where a trial runs: its threads, and its GPU if it has one."""

    threads: int
    gpu: str | None = None


def plan_slots(recipes: Iterable[Recipe], workers: int | None = None, threads: int | None = None) -> list[Slot]:
    """One slot a GPU where there are GPUs, else as many as cores and memory carry, sharing the cores.

    It depends on all recipes of a grid and not on what is left of it: figures on the CPU depend in their last digits on
    the number of threads, so that a grid that goes on must go on as it began.
    """
    gpus, cores = visible_gpus(), usable_cores()
    if gpus:
        count = workers or len(gpus)
        return [Slot(threads or max(1, cores // count), gpus[i % len(gpus)]) for i in range(count)]
    count = workers or max(1, min(cores, usable_memory() // max(map(_memory, recipes))))
    return [Slot(threads or max(1, cores // count))] * count


def _memory(recipe: Recipe) -> int:
    """Bytes that a trial of this recipe may take on the CPU."""
    return MEMORY_OF_A_PROCESS + MEMORY_OF_A_PIXEL * recipe.batch * recipe.crop.height * recipe.crop.width


def usable_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def usable_memory() -> int:
    """Bytes of memory of this machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def visible_gpus() -> list[str]:
    """The CUDA devices that trials may use, as CUDA_VISIBLE_DEVICES names them; asked without loading torch."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name for name in visible.split(",") if name not in ("", "-1")]
    try:
        listed = subprocess.run(
            ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=20,
        )
    except (OSError, subprocess.TimeoutExpired):  # no driver on this machine
        return []
    return listed.stdout.split() if listed.returncode == 0 else []


@dataclass
class _Worker:
    process: subprocess.Popen[bytes]
    slot: Slot
    key: str | None = None
    said: bytearray = field(default_factory=bytearray)


class ProcessExecutor(Executor):
    """Trials in processes of their own, under warm workers. Each trial sees only its slot's device."""

    def __init__(self, lab: Lab, slots: Sequence[Slot]) -> None:
        self.slots = len(slots)
        self._lab = lab
        self._selector = selectors.DefaultSelector()
        self._workers = [self._hire(slot) for slot in slots]

    def start(self, trial: Trial) -> None:
        worker = next(worker for worker in self._workers if worker.key is None)
        worker.key = trial.key
        assert worker.process.stdin is not None
        try:
            worker.process.stdin.write(trial.model_dump_json().encode() + b"\n")
            worker.process.stdin.flush()
        except BrokenPipeError:  # it died idle; `wait` finds that out and hires another
            return

    def wait(self, timeout: float) -> list[Ended]:
        ended = []
        for event, _ in self._selector.select(timeout):
            worker: _Worker = event.data
            chunk = os.read(event.fd, 65536)
            if not chunk:
                ended += self._replace(worker)
                continue
            worker.said += chunk
            while b"\n" in worker.said:
                line, _, rest = bytes(worker.said).partition(b"\n")
                worker.said = bytearray(rest)
                ended.append(_ended(json.loads(line)))
                worker.key = None
        return ended

    def close(self) -> None:
        for worker in self._workers:
            self._dismiss(worker)
        self._selector.close()

    def _hire(self, slot: Slot) -> _Worker:
        environment = {**os.environ, "OMP_NUM_THREADS": str(slot.threads), "OPENBLAS_NUM_THREADS": "1"}
        environment["CUDA_VISIBLE_DEVICES"] = slot.gpu or ""
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "fcnlab.execute.worker"),
                *(str(self._lab.root), str(self._lab.data_root or ""), str(slot.threads)),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            process_group=0,  # Ctrl-C in the terminal is the driver's to answer
        )
        worker = _Worker(process, slot)
        assert process.stdout is not None
        self._selector.register(process.stdout, selectors.EVENT_READ, worker)
        return worker

    def _replace(self, worker: _Worker) -> list[Ended]:
        """A worker has died: say which trial it took along, and put another in its place."""
        self._dismiss(worker)
        self._workers[self._workers.index(worker)] = self._hire(worker.slot)
        if worker.key is None:
            return []
        return [Ended(worker.key, f"its worker ended with {_exit(worker.process.returncode)}")]

    def _dismiss(self, worker: _Worker) -> None:
        process = worker.process
        assert process.stdin is not None and process.stdout is not None
        self._selector.unregister(process.stdout)
        with suppress(BrokenPipeError):
            process.stdin.close()  # the worker reads the end of its input, stops its child and ends
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        process.stdout.close()


def _ended(message: dict[str, object]) -> Ended:
    code = message["exit"]
    return Ended(str(message["key"]), None if code == 0 else f"its process ended with {_exit(code)}")


def _exit(code: object) -> str:
    return f"signal {-code}" if isinstance(code, int) and code < 0 else f"exit code {code}"
