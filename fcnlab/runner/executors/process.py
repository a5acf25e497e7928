"""The `process` executor: worker processes on this machine, one to each GPU or to each share of the cores."""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from fcnlab.config.recipe import Recipe
from fcnlab.errors import RunError
from fcnlab.lab import Lab
from fcnlab.runner.executors.base import PAUSE, RELEASE, Executor, Job, JobExit
from fcnlab.runner.executors.gpus import select_gpus
from fcnlab.settings import DEVICE_VARIABLE, Device

MEMORY_OF_A_PROCESS = 2**30
MEMORY_OF_A_PIXEL = 3 * 2**10
"""Bytes that a trial on the CPU is planned with, for itself and for each pixel of a batch.

Measured: a MobileNetV2 FCN-32s peaked at 12.2 GB in fp32 for 32 crops of 320x480 (2.5 kB a pixel), at 8.3 GB in bf16.
"""

FREED_WITHIN = 2.0
"""Seconds after which the memory of a GPU is free again whose processes have ended; the driver frees it late."""


@dataclass(frozen=True)
class Slot:
    """A place where a trial runs: its threads, and its GPU if it has one.

    A trial on several devices has as many GPUs, separated by commas, or else as many processes that share the threads.

    Attributes:
        threads: CPU threads of the trial.
        gpu: the GPUs of the trial as CUDA_VISIBLE_DEVICES names them; None trains on the CPU.
        devices: how many devices train the trial together.
        verify: on the CPU, whether the worker checks that torch sees no GPU either, because none was found and the
            user has not asked for the CPU.
    """

    threads: int
    gpu: str | None = None
    devices: int = 1
    verify: bool = False

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables of a process in this slot: its threads, the kind of its device, its GPUs."""
        found = {"OMP_NUM_THREADS": str(self.threads), "OPENBLAS_NUM_THREADS": "1"}
        found[DEVICE_VARIABLE] = "cpu" if self.gpu is None else "cuda"
        return found if self.verify else found | {"CUDA_VISIBLE_DEVICES": self.gpu or ""}


def plan_slots(
    recipes: Iterable[Recipe],
    workers: int | None = None,
    threads: int | None = None,
    per_gpu: int = 1,
    devices: int = 1,
    device: Device = "auto",
) -> list[Slot]:
    """`per_gpu` slots a GPU where there are GPUs, else as many as cores and memory carry, sharing the cores.

    With several `devices` a trial, a slot has as many GPUs; what is left over of them stays idle.

    It depends on all recipes of a grid and not on what is left of it: figures on the CPU depend in their last digits on
    the number of threads, so that a grid that goes on must go on as it began.

    Raises:
        RunError: `device` is `cuda` and no GPU is visible.
    """
    gpus, cores = select_gpus(device), usable_cores()
    if gpus:
        groups = [",".join(gpus[i : i + devices]) for i in range(0, len(gpus) - devices + 1, devices)]
        count = workers or per_gpu * len(groups)
        return [Slot(threads or max(1, cores // count), groups[i % len(groups)], devices) for i in range(count)]
    memory = max(estimate_memory(recipe, devices) for recipe in recipes)
    count = workers or max(1, min(cores // devices, usable_memory() // memory))
    verify = device == "auto" and "CUDA_VISIBLE_DEVICES" not in os.environ
    return [Slot(threads or max(1, cores // count), devices=devices, verify=verify)] * count


def estimate_memory(recipe: Recipe, processes: int = 1) -> int:
    """Bytes that a trial of this recipe may take on the CPU, in so many processes."""
    return (
        processes * MEMORY_OF_A_PROCESS + MEMORY_OF_A_PIXEL * recipe.batch_size * recipe.crop.height * recipe.crop.width
    )


def usable_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def usable_memory() -> int:
    """Bytes of memory that this process may use: what the machine has, or what a cluster's job is given of it."""
    return min([os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), *_cgroup_limits()])


def _cgroup_limits() -> Iterator[int]:
    """The limits of Linux control groups (version 2) around this process, where there are any."""
    try:
        path = Path("/proc/self/cgroup").read_text(encoding="utf-8").rpartition("::")[2].strip()
    except OSError:
        return
    own = Path("/sys/fs/cgroup") / path.lstrip("/")
    for group in (own, *own.parents):
        with suppress(OSError, ValueError):  # there is no limit here
            yield int((group / "memory.max").read_text(encoding="utf-8"))


def max_trials_per_gpu(slots: Sequence[Slot], trials: int | None = None) -> int:
    """Return how many trials share a GPU at most; 1 on the CPU, whose cores are divided among the slots.

    Args:
        slots: where trials run.
        trials: how many there are; None: as many as slots.
    """
    used = slots if trials is None else slots[: max(1, trials)]
    return max(Counter(slot.gpu for slot in used if slot.gpu is not None).values(), default=1)


@dataclass
class _Worker:
    process: subprocess.Popen[bytes]
    slot: Slot
    ready: bool = False
    job: Job | None = None
    said: bytearray = field(default_factory=bytearray)


class ProcessExecutor(Executor):
    """Jobs in processes of their own, under warm workers. Each trial sees only its slot's device."""

    def __init__(self, lab: Lab, slots: Sequence[Slot], *, keep_child: bool | None = None) -> None:
        """Start a worker in each slot.

        Args:
            lab: the lab in which trials run.
            slots: where they run.
            keep_child: whether a worker keeps its process for the next trial; None: if it trains on one GPU.
        """
        devices = [slot.gpu for slot in slots]
        self._keep_child = keep_child
        self.shares_devices = len(set(devices)) < len(devices)
        self._lab = lab
        self._selector = selectors.DefaultSelector()
        self._workers = [self._hire(slot) for slot in slots]
        self._clearing: dict[str | None, Job] = {}  # by device: what is to run there alone, once it is clear
        self._released: dict[str | None, float] = {}  # by device that is being cleared: since when it is idle
        self._dropped: list[JobExit] = []  # paused before they had begun

    @property
    def free_slots(self) -> int:
        return sum(worker.job is None and self._open(worker.slot.gpu) for worker in self._workers)

    def start(self, job: Job) -> None:
        if job.exclusive:
            device = min(filter(self._open, self._devices()), key=lambda device: len(self._busy(device)))
            self._clearing[device] = job
            self._start_where_clear()
            return
        self._send(next(w for w in self._workers if w.job is None and self._open(w.slot.gpu)), job)

    def pause(self) -> None:
        self._dropped += [JobExit(job.trial.key) for job in self._clearing.values()]
        self._clearing.clear()
        self._released.clear()
        for worker in self._workers:
            if worker.job is not None:
                _write(worker, PAUSE)

    def _devices(self) -> list[str | None]:
        return list(dict.fromkeys(worker.slot.gpu for worker in self._workers))

    def _busy(self, device: str | None) -> list[Job]:
        """The jobs that run on a device."""
        return [worker.job for worker in self._workers if worker.slot.gpu == device and worker.job is not None]

    def _open(self, device: str | None) -> bool:
        """Whether a device takes jobs: none is alone there, or is about to be."""
        return device not in self._clearing and not any(job.exclusive for job in self._busy(device))

    def _start_where_clear(self) -> None:
        for device, job in list(self._clearing.items()):
            if not self._busy(device) and self._is_free(device):
                del self._clearing[device]
                self._send(next(worker for worker in self._workers if worker.slot.gpu == device), job)

    def _is_free(self, device: str | None) -> bool:
        """Whether the memory of an idle device is free; the processes that its workers have kept are ended first."""
        if device is None:
            return True
        if device not in self._released:
            self._released[device] = time.monotonic()
            for worker in self._workers:
                if worker.slot.gpu == device:
                    _write(worker, RELEASE)
        if time.monotonic() - self._released[device] < FREED_WITHIN:
            return False
        del self._released[device]
        return True

    def _send(self, worker: _Worker, job: Job) -> None:
        if worker.slot.gpu is not None and not job.exclusive:
            on_its_gpu = sum(other.slot.gpu == worker.slot.gpu for other in self._workers)
            job = job.model_copy(update={"sharing": max(job.sharing, on_its_gpu)})
        worker.job = job
        _write(worker, job.model_dump_json().encode())

    def wait(self, timeout: float) -> list[JobExit]:
        ended, self._dropped = self._dropped, []
        for event, _ in self._selector.select(0 if ended else timeout):
            worker: _Worker = event.data
            chunk = os.read(event.fd, 65536)
            if not chunk:
                ended += self._replace(worker)
                continue
            worker.said += chunk
            while b"\n" in worker.said:
                line, _, rest = bytes(worker.said).partition(b"\n")
                worker.said = bytearray(rest)
                ended += self._hear(worker, json.loads(line))
        self._start_where_clear()
        return ended

    def _hear(self, worker: _Worker, message: dict[str, object]) -> list[JobExit]:
        """Take in a line of a worker; returns its job if that has ended.

        Raises:
            RunError: torch in the worker does not see the devices that were found here.
        """
        if "refused" in message:
            raise RunError(str(message["refused"]))
        if "ready" in message:
            worker.ready = True
            return []
        worker.job = None
        return [_ended(message)]

    def await_ready(self, seconds: float = 300.0) -> None:
        """Wait until every worker has started.

        Raises:
            RunError: one does not see its device, or does not start within so many seconds.
        """
        deadline = time.monotonic() + seconds
        while not all(worker.ready for worker in self._workers):
            if time.monotonic() > deadline:
                raise RunError(f"a worker has not started within {seconds:.0f} seconds")
            self._dropped += self.wait(1.0)

    def close(self) -> None:
        for worker in self._workers:
            self._dismiss(worker)
        self._selector.close()

    def _hire(self, slot: Slot) -> _Worker:
        command = [
            sys.executable,
            "-m",
            "fcnlab.runner.executors.worker",
            str(self._lab.root),
            str(self._lab.data_root or ""),
        ]
        command += ["--threads", str(slot.threads), "--devices", str(slot.devices)]
        command += ["--verify"] if slot.verify else []
        on_one_gpu = slot.gpu is not None and slot.devices == 1
        command += ["--keep-child"] if (on_one_gpu if self._keep_child is None else self._keep_child) else []
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **slot.environment},
            process_group=0,  # Ctrl-C in the terminal is the driver's to answer
        )
        worker = _Worker(process, slot)
        assert process.stdout is not None
        self._selector.register(process.stdout, selectors.EVENT_READ, worker)
        return worker

    def _replace(self, worker: _Worker) -> list[JobExit]:
        """A worker has died: say which trial it took along, and put another in its place."""
        self._dismiss(worker)
        self._workers[self._workers.index(worker)] = self._hire(worker.slot)
        if worker.job is None:
            return []
        return [JobExit(worker.job.trial.key, f"its worker ended with {_exit(worker.process.returncode)}")]

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


def _write(worker: _Worker, line: bytes) -> None:
    assert worker.process.stdin is not None
    # A worker that died idle takes nothing any more; `wait` finds that out and hires another.
    with suppress(BrokenPipeError):
        worker.process.stdin.write(line + b"\n")
        worker.process.stdin.flush()


def _ended(message: dict[str, object]) -> JobExit:
    code = message["exit"]
    return JobExit(str(message["key"]), None if code == 0 else f"its process ended with {_exit(code)}")


def _exit(code: object) -> str:
    return f"signal {-code}" if isinstance(code, int) and code < 0 else f"exit code {code}"
