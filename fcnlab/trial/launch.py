"""Distributed training of one trial: one process (rank) per device.

If a rank fails or is killed, the other ranks would wait for it in a collective operation. The launching process
therefore monitors all ranks and kills them at the end. Ranks never exit on their own; an exited rank has crashed.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from threading import Event, Thread

import torch

from fcnlab.errors import StopRunError
from fcnlab.redaction import redact_output
from fcnlab.settings import KILLED
from fcnlab.trial.record import Record

Result = Record | StopRunError | None
"""Result of a rank: the record of the trial, an error outside of the trial, or None."""

START_METHOD = "fork" if sys.platform == "linux" else "spawn"
"""Start method of the processes of a trial; the parent must not have initialized CUDA."""

PR_SET_PDEATHSIG = 1
"""Option of Linux's prctl: the signal that this process receives when the thread that started it exits."""

CRASH_TIMEOUT = 0.5
"""Seconds to wait for the exit of a crashed rank after another rank has reported an error."""


def launch(size: int, work: Callable[[int], Result]) -> Result:
    """Call `work(rank)` in one process per rank and wait for the first result.

    Args:
        size: number of ranks; they share the CPU threads of this process.
        work: returns the record of rank 0 (None if paused); other ranks return one only if they failed.

    Returns:
        The result of rank 0, or of the first rank that failed.

    Raises:
        SystemExit: a rank was killed; this process ends too, and the trial is retried.
    """
    context = multiprocessing.get_context(START_METHOD)
    threads = max(1, torch.get_num_threads() // size)
    receivers: list[Connection] = []
    ranks: list[BaseProcess] = []
    try:
        for rank in range(size):
            receiver, sender = context.Pipe(duplex=False)
            process = context.Process(target=_run, args=(rank, threads, work, sender))  # type: ignore[attr-defined]
            process.start()
            sender.close()  # so that the pipe closes when the rank is killed
            receivers.append(receiver)
            ranks.append(process)
        return _receive_first(receivers, ranks)
    finally:
        for process in ranks:
            process.kill()
            process.join()


def _run(rank: int, threads: int, work: Callable[[int], Result], sender: Connection) -> None:
    redact_output()
    exit_with_parent()
    torch.set_num_threads(threads)
    record = work(rank)
    if rank == 0 or record is not None:
        sender.send(record)
    sys.stdout.flush()
    Event().wait()


def exit_with_parent() -> None:
    """Let this process exit when its parent dies, so that no rank outlives its trial.

    On Linux the kernel kills it, also if it is stopped or hangs; elsewhere a thread waits for the end of the parent.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None, "another process has started it"
    if START_METHOD == "fork":  # on Linux
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if not parent.is_alive():
            os._exit(1)
        return
    Thread(target=_await, args=(parent.sentinel,), daemon=True).start()


def _await(sentinel: int) -> None:
    wait([sentinel])
    os._exit(1)


def _receive_first(receivers: Sequence[Connection], ranks: Sequence[BaseProcess]) -> Result:
    ready = wait(receivers)  # for a record, or for the exit of a rank
    try:
        record: Result = next(receiver for receiver in receivers if receiver in ready).recv()
    except EOFError:
        raise _exit_with_ranks(_describe_exits(ranks), ranks) from None
    if isinstance(record, Record) and record.status == "failed" and (dead := _describe_exits(ranks)):
        raise _exit_with_ranks(dead, ranks)
    return record


def _exit_with_ranks(description: str, ranks: Sequence[BaseProcess]) -> SystemExit:
    """Write to the log which ranks have exited; return an exit with the code that shells give to a killed process."""
    sys.stderr.write(description + "\n")
    sys.stderr.flush()
    return SystemExit(KILLED if any(process.exitcode == -signal.SIGKILL for process in ranks) else 1)


def _describe_exits(ranks: Sequence[BaseProcess]) -> str:
    """Describe the exited ranks; return an empty string if none exits within CRASH_TIMEOUT."""
    dead = wait([process.sentinel for process in ranks], CRASH_TIMEOUT)
    for process in ranks:
        if process.sentinel in dead:
            process.join()
    codes = {rank: process.exitcode for rank, process in enumerate(ranks) if process.exitcode is not None}
    return "; ".join(f"rank {rank} ended with exit code {code}" for rank, code in codes.items())
