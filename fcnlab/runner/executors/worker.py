"""A worker: a process that has imported torch once and runs trials, each in a child process.

    python -m fcnlab.runner.executors.worker LAB DATA_ROOT [--threads N] [--devices N] [--verify] [--keep-child]

The first line on standard output is `{"ready": true}`, or `{"refused": "..."}` where torch does not see the devices
that the driver has counted; then the worker ends. Jobs come as JSON, one a line, on standard input; for each, one line
of JSON goes out when its process is done with it. The line `pause` asks the trial that runs to stop after its epoch,
the line `release` ends a child that is kept.

On Linux the child is forked from the worker, so a trial starts in milliseconds with nothing left over from the one
before; elsewhere it is spawned. On a GPU the child is kept for the next trials (`--keep-child`): it has its CUDA
context, compiled kernels and resident data already. It is replaced after any trial that failed. When standard input
ends, the driver is gone and so is the child. On several devices the child starts a process for each: see
`fcnlab.trial.launch`.

mlflow is never imported here.
"""

from __future__ import annotations

import argparse
import gc
import json
import multiprocessing
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.synchronize import Event
from pathlib import Path
from threading import Thread
from typing import Protocol

import torch

from fcnlab.errors import ModelError
from fcnlab.lab import Lab
from fcnlab.runner.executors.base import PAUSE, RELEASE, Job
from fcnlab.settings import DEVICE_VARIABLE
from fcnlab.training import hardware
from fcnlab.trial.build import prepare
from fcnlab.trial.launch import START_METHOD, exit_with_parent
from fcnlab.trial.record import Record
from fcnlab.trial.run import run_trial
from fcnlab.trial.run_folder import RunFolder


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the jobs that come in, one after the other."""
    given = _parser().parse_args(arguments)
    lab = Lab(Path(given.root), Path(given.data_root) if given.data_root else None)
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever a library prints must not reach the driver's ears
    error = _device_error(given.devices, verify=given.verify)
    print(json.dumps({"ready": True} if error is None else {"refused": error}), file=out, flush=True)
    if error is not None:
        return
    lines = _Lines()
    child: _Child | None = None
    try:
        while (line := lines.next()) is not None:
            if line == PAUSE:  # it came after the trial had ended
                continue
            if line == RELEASE:
                _stop(child)
                child = None
                continue
            job = Job.model_validate_json(line)
            if child is None or not child.process.is_alive():
                with suppress(ModelError):  # the trial will meet it too, and its record say so
                    prepare(job.trial.variant)
                child = _Child(lab, given.threads, given.devices, keep=given.keep_child)
            code = child.run(job, lines)
            if code is None:
                return
            print(json.dumps({"key": job.trial.key, "exit": code}), file=out, flush=True)
    finally:
        _stop(child)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="fcnlab.runner.executors.worker")
    parser.add_argument("root")
    parser.add_argument("data_root")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--devices", type=int, default=1)
    parser.add_argument("--verify", action="store_true")
    parser.add_argument("--keep-child", action="store_true")
    return parser


def device_error(kind: str, count: int, devices: int, *, verify: bool) -> str | None:
    """Compare the devices that the driver has found with those that torch sees.

    Args:
        kind: the kind of device that is to train, `cpu` or `cuda`.
        count: how many CUDA devices torch sees.
        devices: how many devices train a trial.
        verify: whether torch must see no CUDA device where the CPU trains.

    Returns:
        The problem and its remedy in one line; None if they agree.
    """
    if kind == "cuda" and count < devices:
        build = "" if torch.version.cuda else ", a build without CUDA,"
        named = os.environ.get("CUDA_VISIBLE_DEVICES")
        return (
            f"torch {torch.__version__}{build} sees {count} of the {devices} GPUs of a trial "
            f"(CUDA_VISIBLE_DEVICES={named}); install a torch build that fits the NVIDIA driver, or train on the CPU "
            "with --device cpu"
        )
    if kind == "cpu" and verify and count:
        return (
            f"torch {torch.__version__} sees {count} CUDA devices, but neither NVML nor /dev shows a GPU; set "
            "CUDA_VISIBLE_DEVICES to the GPUs that are to train, such as 0, or train on the CPU with --device cpu"
        )
    return None


def _device_error(devices: int, *, verify: bool) -> str | None:
    """Ask torch in a process of its own: one that has asked about CUDA devices cannot fork processes that use them."""
    kind = os.environ.get(DEVICE_VARIABLE, "cpu")
    if kind == "cpu" and not verify:
        return None
    context = multiprocessing.get_context(START_METHOD)
    ours, theirs = context.Pipe(duplex=False)
    asked = context.Process(target=_send_device_count, args=(theirs,))  # type: ignore[attr-defined]
    asked.start()
    theirs.close()
    try:
        count = int(ours.recv())
    except EOFError:
        asked.join()
        return f"torch {torch.__version__} ended with exit code {asked.exitcode} when it looked for CUDA devices"
    asked.join()
    return device_error(kind, count, devices, verify=verify)


def _send_device_count(to: Connection) -> None:
    to.send(device_count())


def device_count() -> int:
    """Return how many CUDA devices torch sees."""
    return torch.cuda.device_count() if torch.cuda.is_available() else 0


class _Pause(Protocol):
    """An event of `threading` or of `multiprocessing`."""

    def is_set(self) -> bool:
        """Whether the trial is to pause."""
        ...


class _Lines:
    """Lines from standard input that can be waited for together with a process."""

    def __init__(self) -> None:
        self._buffer = b""

    def next(self) -> bytes | None:
        """The next line, or None at the end of the input."""
        while b"\n" not in self._buffer:
            if not self.read():
                return None
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line

    def read(self) -> bool:
        """Take in what is there; False at the end of the input."""
        chunk = os.read(0, 65536)
        self._buffer += chunk
        return bool(chunk)

    def take(self, line: bytes) -> bool:
        """Whether this very line has come; it is taken out."""
        there = line + b"\n" in self._buffer
        self._buffer = self._buffer.replace(line + b"\n", b"")
        return there


class _Child:
    """A process that runs one job, or with `keep` one after the other while each of them leaves it sound."""

    def __init__(self, lab: Lab, threads: int, devices: int, *, keep: bool) -> None:
        context = multiprocessing.get_context(START_METHOD)
        self._pause = context.Event()
        self._pipe, theirs = context.Pipe()
        self.process = context.Process(  # type: ignore[attr-defined]
            target=_serve, args=(theirs, self._pause, lab, threads, devices, keep)
        )
        self.process.start()
        theirs.close()  # so that the pipe ends with the child

    def run(self, job: Job, lines: _Lines) -> int | None:
        """Run a job to its end, and pass a pause on to it.

        Returns:
            0 where the child is done with the job, else the exit code that the child ended with; None if the driver
            went away first.
        """
        self._pause.clear()
        with suppress(BrokenPipeError, ConnectionResetError):  # it died this moment; its exit code is read below
            self._pipe.send(job.model_dump_json())
        while True:
            if lines.take(PAUSE):  # it may have come together with the job
                self._pause.set()
            ready = wait([self.process.sentinel, self._pipe, 0])
            if self._pipe in ready or self.process.sentinel in ready:
                return self._finish()
            if not lines.read():
                return None

    def _finish(self) -> int:
        """Return how a job ended: the child says that it is done with it, or has died."""
        try:
            kept = self._pipe.recv()
        except (EOFError, ConnectionResetError):
            self.process.join()
            return self.process.exitcode or 0
        if not kept:
            self.process.join()
        return 0

    def stop(self) -> None:
        """End the process at once."""
        self.process.terminate()
        self.process.join()
        self._pipe.close()


def _stop(child: _Child | None) -> None:
    if child is not None:
        child.stop()


def _serve(jobs: Connection, pause: Event, lab: Lab, threads: int, devices: int, keep: bool) -> None:
    """Run jobs as they come, in this process; after each, send whether this process stays for the next."""
    Thread(target=exit_with_parent, daemon=True).start()
    stays = True
    while stays:
        job = Job.model_validate_json(jobs.recv())
        stays = _run(job, lab, threads, devices, pause) and keep
        if stays:
            gc.collect()
            if torch.cuda.is_initialized():
                torch.cuda.empty_cache()  # for the other trials of the GPU
        jobs.send(stays)


def _run(job: Job, lab: Lab, threads: int, devices: int, pause: Event) -> bool:
    """Run one trial, with its output in its run folder; returns whether it ended without an error."""
    folder = RunFolder(lab.runs, job.trial.key)
    folder.create()
    sys.stdout.flush()
    sys.stderr.flush()
    log = os.open(folder.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    record = run_job(job, lab, threads=threads, devices=devices, pause=pause)
    return record is None or record.status == "finished"  # None: it was paused


def run_job(job: Job, lab: Lab, *, threads: int, devices: int = 1, pause: _Pause) -> Record | None:
    """Run a job in this process and return its record; None if it was paused."""
    torch.set_num_threads(threads)
    hardware.retain_freed_memory(release_large_blocks=job.trial.recipe.activation_checkpointing != "none")
    return run_trial(
        job.trial,
        lab,
        pause_after=job.pause_after,
        micro_batches=job.micro_batches,
        should_pause=pause.is_set,
        devices=devices,
        sharing=job.sharing,
        checkpoint_every=job.checkpoint_every,
    )


if __name__ == "__main__":
    main()
