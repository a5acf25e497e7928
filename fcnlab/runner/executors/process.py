"""The `process` executor: worker processes on this machine, one for each GPU or group of CPU cores."""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import time
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from fcnlab.errors import RunError
from fcnlab.lab import Lab
from fcnlab.paths import is_file
from fcnlab.runner.executors.base import PAUSE, RELEASE, Executor, Job, JobExit
from fcnlab.runner.executors.exits import count_oom_kills, describe_exit, find_memory_message, was_killed
from fcnlab.runner.executors.hang import HangDetector
from fcnlab.runner.executors.slots import Slot
from fcnlab.runner.executors.worker_process import UNKNOWN_EXIT, WORKER, WorkerProcess, start_worker
from fcnlab.trial.run_folder import RunFolder

START_TIMEOUT = 300.0
"""Seconds that workers have to start where they are waited for."""

STOP_TIMEOUT = 20.0
"""Seconds that workers have to stop their trials before they are killed."""

MAX_FAILED_STARTS = 3
"""Number of workers of a slot that end in sequence before they have started, after which the run ends."""

FREED_WITHIN = 2.0
"""Seconds until the memory of ended GPU processes is free again; the NVIDIA driver frees it with a delay."""


@dataclass
class _Worker:
    """A worker process.

    Attributes:
        failed_starts: number of workers of its slot, directly before it, that ended before they had started.
        ready: whether it has imported torch and seen its device.
        job: the job that it runs.
        log_start: bytes in the log of the job's trial when the job was sent.
        oom_kills: processes that the kernel had killed for lack of memory when the job was sent.
        hung: reason for killing its processes; None if they were not killed.
        output: its output after the last complete line.
    """

    process: WorkerProcess
    slot: Slot
    failed_starts: int = 0
    ready: bool = False
    job: Job | None = None
    log_start: int = 0
    oom_kills: int = 0
    hung: str | None = None
    output: bytearray = field(default_factory=bytearray)


class ProcessExecutor(Executor):
    """Runs jobs in worker processes. Each trial sees only the devices of its slot."""

    def __init__(self, lab: Lab, slots: Sequence[Slot], *, keep_child: bool | None = None) -> None:
        """Start a worker in each slot.

        Args:
            lab: the lab in which trials run.
            slots: one worker is started in each slot.
            keep_child: whether a worker keeps its child process for the next trial; None keeps it on a single GPU.
        """
        devices = [slot.gpu for slot in slots]
        self._keep_child = keep_child
        self.shares_devices = len(set(devices)) < len(devices)
        self._lab = lab
        self._selector = selectors.DefaultSelector()
        self._workers = [self._start_worker(slot) for slot in slots]
        self._waiting_exclusive: dict[str | None, Job] = {}  # exclusive jobs that wait, by device
        self._released: dict[str | None, float] = {}  # time of the release, by device
        self._early_exits: list[JobExit] = []  # paused before they started
        self._is_pausing = False
        self._hangs = HangDetector()

    @property
    def free_slots(self) -> int:
        return sum(worker.job is None and self._accepts_jobs(worker.slot.gpu) for worker in self._workers)

    @property
    def waiting(self) -> Collection[str]:
        return {job.trial.key for job in self._waiting_exclusive.values()}

    def start(self, job: Job) -> None:
        if job.exclusive:
            device = min(
                filter(self._accepts_jobs, self._devices()), key=lambda device: len(self._running_jobs(device))
            )
            self._waiting_exclusive[device] = job
            self._start_exclusive_jobs()
            return
        idle = (worker for worker in self._workers if worker.job is None)
        self._send(next(worker for worker in idle if self._accepts_jobs(worker.slot.gpu)), job)

    def pause(self) -> None:
        self._is_pausing = True
        self._early_exits += [JobExit(job.trial.key) for job in self._waiting_exclusive.values()]
        self._waiting_exclusive.clear()
        self._released.clear()
        for worker in list(self._workers):
            if worker.job is not None and worker.ready:
                _write(worker, PAUSE)
            elif worker.job is not None:  # its trial has not started: it would first import torch and train an epoch
                self._early_exits.append(self._cancel(worker))

    def _cancel(self, worker: _Worker) -> JobExit:
        """Kill a worker that has not started yet, and return its job as paused."""
        job, worker.job = worker.job, None
        assert job is not None, "it was to start the job"
        self._hangs.forget(job.trial.key)
        self._workers.remove(worker)
        worker.process.kill()
        _end_input(worker)
        self._stop_worker(worker, time.monotonic() + STOP_TIMEOUT)
        return JobExit(job.trial.key)

    def _devices(self) -> list[str | None]:
        return list(dict.fromkeys(worker.slot.gpu for worker in self._workers))

    def _running_jobs(self, device: str | None) -> list[Job]:
        """Return the running jobs of a device."""
        return [worker.job for worker in self._workers if worker.slot.gpu == device and worker.job is not None]

    def _accepts_jobs(self, device: str | None) -> bool:
        """Return whether a device accepts jobs: no exclusive job runs or waits there."""
        return device not in self._waiting_exclusive and not any(job.exclusive for job in self._running_jobs(device))

    def _start_exclusive_jobs(self) -> None:
        for device, job in list(self._waiting_exclusive.items()):
            if not self._running_jobs(device) and self._is_free(device):
                del self._waiting_exclusive[device]
                self._send(next(worker for worker in self._workers if worker.slot.gpu == device), job)

    def _is_free(self, device: str | None) -> bool:
        """Stop the kept child processes of an idle device; return whether its memory is free."""
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
            job = job.model_copy(update={"trials_per_device": max(job.trials_per_device, on_its_gpu)})
        folder = RunFolder(self._lab.runs, job.trial.key)
        worker.job = job
        worker.log_start = folder.log.stat().st_size if is_file(folder.log) else 0
        worker.oom_kills = count_oom_kills()
        self._hangs.watch(job.trial.key, folder.heartbeat, job.hang_timeout)
        _write(worker, job.model_dump_json().encode())

    def wait(self, timeout: float) -> list[JobExit]:
        self._kill_hung()
        ended, self._early_exits = self._early_exits, []
        for event, _ in self._selector.select(0 if ended else timeout):
            worker: _Worker = event.data
            chunk = os.read(event.fd, 65536)
            if not chunk:
                ended += self._replace(worker)
                continue
            worker.output += chunk
            while b"\n" in worker.output:
                line, _, rest = bytes(worker.output).partition(b"\n")
                worker.output = bytearray(rest)
                ended += self._handle_message(worker, json.loads(line))
        self._start_exclusive_jobs()
        return ended

    def _handle_message(self, worker: _Worker, message: dict[str, object]) -> list[JobExit]:
        """Handle a message of a worker; return its job if the job has ended.

        Raises:
            RunError: torch in the worker does not see the expected devices.
        """
        if "refused" in message:
            raise RunError(str(message["refused"]))
        if "ready" in message:
            worker.ready = True
            return []
        code, stop = message["exit"], message["stop"]
        assert isinstance(code, int)
        return [self._end_job(worker, code, "process", str(stop) if stop is not None else None)]

    def _end_job(self, worker: _Worker, code: int, what: str, stop: str | None = None) -> JobExit:
        """End the job of a worker.

        Args:
            worker: the worker.
            code: exit code of the process that ran the job.
            what: name of this process, `process` of the trial or `worker`.
            stop: reason for ending the run, as in `JobExit`.
        """
        job, worker.job = worker.job, None
        assert job is not None, "it has reported the end of its job"
        key = job.trial.key
        self._hangs.forget(key)
        if worker.hung is not None:
            return JobExit(key, worker.hung)
        if code == 0 and what == "process":
            return JobExit(key, stop=stop)
        message = f"its {what} ended with {describe_exit(code)}"
        if what == "worker" and code == UNKNOWN_EXIT:
            message = "its worker was lost, because the process from which workers are forked was killed"
        if was_killed(code) and count_oom_kills() > worker.oom_kills:
            for other in self._workers:
                other.oom_kills += 1  # this kill has been explained
            return JobExit(key, f"out of memory: the kernel killed its {what}", cause="out_of_memory")
        reason = find_memory_message(RunFolder(self._lab.runs, key).log, worker.log_start)
        if reason is not None:
            return JobExit(key, f"out of memory: {message} after '{reason}'", cause="out_of_memory")
        return JobExit(key, message)

    def _kill_hung(self) -> None:
        """Kill the processes of trials that hang; the end of their output then replaces the worker."""
        for key, reason in self._hangs.find_hung().items():
            worker = next(worker for worker in self._workers if worker.job is not None and worker.job.trial.key == key)
            worker.hung = reason
            worker.process.kill()

    def await_ready(self) -> None:
        """Wait until every worker has started.

        Raises:
            RunError: a worker does not see its device, or has not started in time.
        """
        deadline = time.monotonic() + START_TIMEOUT
        while not all(worker.ready for worker in self._workers):
            if time.monotonic() > deadline:
                raise RunError(f"a worker has not started within {START_TIMEOUT:.0f} seconds")
            self._early_exits += self.wait(1.0)

    def close(self) -> None:
        for worker in self._workers:
            if not worker.ready:  # it need not have started, and has no trial yet
                worker.process.kill()
            _end_input(worker)  # all of them before the first wait
        deadline = time.monotonic() + STOP_TIMEOUT
        for worker in self._workers:
            self._stop_worker(worker, deadline)
        self._selector.close()

    def _start_worker(self, slot: Slot, failed_starts: int = 0) -> _Worker:
        arguments = [str(self._lab.root), str(self._lab.data_root or "")]
        arguments += ["--workdir", str(self._lab.workdir)] if self._lab.workdir is not None else []
        arguments += ["--threads", str(slot.threads), "--devices", str(slot.devices)]
        arguments += ["--verify"] if slot.verify else []
        on_one_gpu = slot.gpu is not None and slot.devices == 1
        arguments += ["--keep-child"] if (on_one_gpu if self._keep_child is None else self._keep_child) else []
        process = start_worker(WORKER, arguments, {**os.environ, **slot.environment})
        worker = _Worker(process, slot, failed_starts)
        assert process.stdout is not None
        self._selector.register(process.stdout, selectors.EVENT_READ, worker)
        return worker

    def _replace(self, worker: _Worker) -> list[JobExit]:
        """Replace a worker that has exited, unless no more jobs start; return the job that was lost.

        A worker that had not started loses no job: its replacement gets it.

        Raises:
            RunError: workers cannot be started.
        """
        _end_input(worker)
        code = self._stop_worker(worker, time.monotonic() + STOP_TIMEOUT)
        if self._is_pausing:
            self._workers.remove(worker)
            return [] if worker.job is None else [self._end_job(worker, code, "worker")]
        failed_starts = 0 if worker.ready or worker.hung is not None else worker.failed_starts + 1
        if failed_starts == MAX_FAILED_STARTS:
            self._workers.remove(worker)
            raise RunError(
                f"workers cannot be started: {failed_starts} in sequence ended with {describe_exit(code)}; their "
                "output is above"
            )
        replacement = self._start_worker(worker.slot, failed_starts)
        self._workers[self._workers.index(worker)] = replacement
        if worker.job is None:
            return []
        if failed_starts:
            self._send(replacement, worker.job)
            return []
        return [self._end_job(worker, code, "worker")]

    def _stop_worker(self, worker: _Worker, deadline: float) -> int:
        """Wait for the end of a worker whose input has ended, kill it after the deadline, and return its exit code."""
        process = worker.process
        assert process.stdout is not None
        self._selector.unregister(process.stdout)
        try:
            code = process.wait(timeout=max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            code = process.end()
        process.stdout.close()
        return code


def _write(worker: _Worker, line: bytes) -> None:
    assert worker.process.stdin is not None
    # The pipe of a dead worker is broken; `wait` detects that and replaces the worker.
    with suppress(BrokenPipeError):
        worker.process.stdin.write(line + b"\n")
        worker.process.stdin.flush()


def _end_input(worker: _Worker) -> None:
    """Close the input of a worker, which then stops its child and exits."""
    assert worker.process.stdin is not None
    with suppress(BrokenPipeError):
        worker.process.stdin.close()
