"""The worker process: imports torch once and runs each trial in a child process.

    python -m fcnlab.runner.executors.worker LAB DATA_ROOT [--workdir DIR] [--threads N] [--devices N] [--verify]
        [--keep-child]

The first line on standard output is `{"ready": true}`, or `{"refused": "..."}` if torch does not see the devices that
the driver found; the worker then exits. Jobs arrive on standard input as one line of JSON each; the worker prints one
line of JSON when a job has ended. The line `pause` pauses the running trial after its epoch, the line `release` stops a
kept child process. SIGTERM or SIGINT, which a cluster may send to all processes of a job, pauses the running trial in
the same way, and the worker then exits; a later second signal ends it at once.

On Linux the child is forked, so a trial starts in milliseconds with a clean state; elsewhere it is spawned. On a GPU
the child is kept for the next trials (`--keep-child`), with its CUDA context, compiled kernels and resident data, and
replaced after a failed trial. At the end of standard input the driver has exited; the worker stops its child and exits.
For several devices the child starts one process per device: see `fcnlab.trial.launch`.

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
from pathlib import Path
from typing import NamedTuple, Protocol

import torch

from fcnlab.errors import ModelError, RunError
from fcnlab.lab import Lab
from fcnlab.redaction import redact_output
from fcnlab.runner.executors.base import PAUSE, RELEASE, Job
from fcnlab.runner.executors.device_check import find_device_error
from fcnlab.runner.executors.stop_signals import StopSignals, block_stop_signals
from fcnlab.storage_errors import convert_storage_errors
from fcnlab.training import hardware
from fcnlab.trial.build import prepare
from fcnlab.trial.environment import find_code_commit
from fcnlab.trial.launch import START_METHOD, exit_with_parent
from fcnlab.trial.record import Record
from fcnlab.trial.run import run_trial
from fcnlab.trial.run_folder import RunFolder


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the jobs from standard input, one at a time.

    Args:
        arguments: command-line arguments; None reads those of the process.
    """
    options = _parser().parse_args(arguments)
    redact_output()
    signals = StopSignals()
    lab = Lab(Path(options.root), Path(options.data_root) if options.data_root else None, workdir=options.workdir)
    driver = os.dup(1)
    os.dup2(2, 1)  # output of libraries must not mix with the messages to the driver
    error = find_device_error(options.devices, verify=options.verify)
    _send_to_driver(driver, {"ready": True} if error is None else {"refused": error})
    if error is not None:
        return
    find_code_commit()  # for all trials: their processes are forked from this one
    lines = _Lines()
    child: _Child | None = None
    try:
        while not signals.received and (line := lines.next()) is not None:
            if line == PAUSE:  # the trial has already ended
                continue
            if line == RELEASE:
                _stop(child)
                child = None
                continue
            job = Job.model_validate_json(line)
            if child is None or not child.is_waiting():
                with suppress(ModelError):  # the trial raises it again and records it
                    prepare(job.trial.variant)
                child = _Child(lab, options.threads, options.devices, keep=options.keep_child)
            end = child.run(job, lines, signals)
            if end is None:
                return
            _send_to_driver(driver, {"key": job.trial.key, "exit": end.code, "stop": end.stop})
    finally:
        _stop(child)


def _send_to_driver(driver: int, message: dict[str, object]) -> None:
    """Write a line of JSON; if the driver has been killed, standard input ends, too, and the worker exits."""
    with suppress(BrokenPipeError):
        os.write(driver, json.dumps(message).encode() + b"\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="fcnlab.runner.executors.worker")
    parser.add_argument("root")
    parser.add_argument("data_root")
    parser.add_argument("--workdir", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--devices", type=int, default=1)
    parser.add_argument("--verify", action="store_true")
    parser.add_argument("--keep-child", action="store_true")
    return parser


POLL_INTERVAL = 0.5
"""Seconds between two checks for a signal while a trial runs."""


class _Lines:
    """A line buffer of standard input that can be polled together with a process."""

    def __init__(self) -> None:
        self._buffer = b""

    def next(self) -> bytes | None:
        """Return the next line, or None at the end of the input."""
        while b"\n" not in self._buffer:
            if not self.read():
                return None
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line

    def read(self) -> bool:
        """Read available input; return False at its end."""
        chunk = os.read(0, 65536)
        self._buffer += chunk
        return bool(chunk)

    def take(self, line: bytes) -> bool:
        """Remove a line from the buffer; return whether it was there."""
        is_buffered = line + b"\n" in self._buffer
        self._buffer = self._buffer.replace(line + b"\n", b"")
        return is_buffered


class _End(NamedTuple):
    """The end of a job.

    Attributes:
        code: 0, or the exit code of the child if it crashed.
        stop: reason for ending the run; None if there is none.
    """

    code: int
    stop: str | None = None


class _Child:
    """A child process that runs one job, or with `keep` several jobs until one fails.

    It is paused through its pipe: events of `multiprocessing` require /dev/shm, which some containers do not have.
    """

    def __init__(self, lab: Lab, threads: int, devices: int, *, keep: bool) -> None:
        context = multiprocessing.get_context(START_METHOD)
        self._pipe, theirs = context.Pipe()
        self.process = context.Process(  # type: ignore[attr-defined]
            target=_serve, args=(theirs, lab, threads, devices, keep)
        )
        with block_stop_signals():  # until the child can handle them
            self.process.start()
        theirs.close()  # so that the pipe closes when the child exits

    def is_waiting(self) -> bool:
        """Return whether the child waits for a job; its pipe closes before its exit is reported."""
        return self.process.is_alive() and not self._pipe.poll()

    def run(self, job: Job, lines: _Lines, signals: StopSignals) -> _End | None:
        """Run a job to its end and forward a pause to it.

        Returns:
            The end of the job; None if the driver exited first.
        """
        self._send(job.model_dump_json())
        pauses = False
        with signals.during_trial():
            while True:
                if (lines.take(PAUSE) or signals.received) and not pauses:  # it may have arrived together with the job
                    pauses = True
                    self._send(None)
                ready = wait([self.process.sentinel, self._pipe, 0], POLL_INTERVAL)
                if self._pipe in ready or self.process.sentinel in ready:
                    return self._finish()
                if 0 in ready and not lines.read():
                    return None

    def _send(self, message: str | None) -> None:
        with suppress(BrokenPipeError, ConnectionResetError):  # the child has just died; its exit code is read later
            self._pipe.send(message)

    def _finish(self) -> _End:
        """Return the end of the job that the child has completed, or the exit code of the child."""
        try:
            kept, stop = self._pipe.recv()
        except (EOFError, ConnectionResetError):
            self.process.join()
            return _End(self.process.exitcode or 0)
        if not kept:
            self.process.join()
        return _End(0, stop)

    def stop(self) -> None:
        """Kill the process: SIGTERM would only pause it, and one that is stopped would not receive it."""
        self.process.kill()
        self.process.join()
        self._pipe.close()


def _stop(child: _Child | None) -> None:
    if child is not None:
        child.stop()


def _serve(pipe: Connection, lab: Lab, threads: int, devices: int, keep: bool) -> None:
    """Run jobs in this process; after each, send whether the process is kept for the next, and why the run must end."""
    redact_output()  # a spawned process does not inherit it
    signals = StopSignals()
    exit_with_parent()
    kept = True
    while kept:
        try:
            message = pipe.recv()
        except (EOFError, ConnectionResetError):  # the worker has been killed
            return
        if message is None:  # a pause that arrived after the end of its job
            continue
        stop: str | None = None
        try:
            with signals.during_trial():
                kept = _run(Job.model_validate_json(message), lab, threads, devices, pipe, signals) and keep
        except RunError as error:
            kept, stop = False, str(error)
        if kept:
            gc.collect()
            if torch.cuda.is_initialized():
                torch.cuda.empty_cache()  # for the other trials of the GPU
        with suppress(BrokenPipeError, ConnectionResetError):  # the worker has been killed
            pipe.send((kept, stop))


def _run(job: Job, lab: Lab, threads: int, devices: int, pipe: Connection, signals: StopSignals) -> bool:
    """Run one trial with its output in its run folder; return whether it ended without an error.

    Raises:
        RunError: the run must end, for a reason outside of the trial.
    """
    folder = RunFolder(lab.runs, job.trial.key)
    folder.create()
    sys.stdout.flush()
    sys.stderr.flush()
    with convert_storage_errors(lab.output):
        log = os.open(folder.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    record = run_job(job, lab, threads=threads, devices=devices, pause=_PipePause(pipe, signals))
    return record is None or record.status == "finished"  # None: the trial was paused


class Pause(Protocol):
    """An event of `threading` or of `multiprocessing`, or an object with its method."""

    def is_set(self) -> bool:
        """Return whether the trial must pause."""
        ...


class _PipePause:
    """The pause of a worker, which arrives through the pipe of its child, or a signal to this process."""

    def __init__(self, pipe: Connection, signals: StopSignals) -> None:
        self._pipe, self._signals = pipe, signals
        self._received = False

    def is_set(self) -> bool:
        """Return whether the worker has sent a pause, or this process has received a signal."""
        while not self._received and self._pipe.poll():
            self._received = self._pipe.recv() is None
        return self._received or self._signals.received


def run_job(job: Job, lab: Lab, *, threads: int, devices: int = 1, pause: Pause) -> Record | None:
    """Run a job in this process.

    Args:
        job: the trial and its settings.
        lab: the lab in which it runs.
        threads: number of CPU threads.
        devices: number of devices of the trial.
        pause: event that pauses the trial after its epoch.

    Returns:
        The record; None if the trial was paused.

    Raises:
        RunError: the run must end, for a reason outside of the trial.
    """
    torch.set_num_threads(threads)
    hardware.retain_freed_memory(release_large_blocks=job.trial.recipe.activation_checkpointing != "none")
    return run_trial(job.trial, lab, job, should_pause=pause.is_set, devices=devices)


if __name__ == "__main__":
    main()
