"""One trial in several processes, a device each.

The process that starts them does no more than to see what comes of them: where one of them fails or is killed, the
others would wait for it for ever. So none of them ends by itself: one that has ended was killed.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from threading import Event, Thread

import torch

from fcnlab.trial.record import Record

START_METHOD = "fork" if sys.platform == "linux" else "spawn"
"""How processes of a trial are started; who starts one must not have used CUDA."""

AFTERMATH = 0.5
"""Seconds within which a process is seen to be dead whose death another one reports as an error."""


def launch(size: int, work: Callable[[int], Record | None]) -> Record | None:
    """Call `work` with each rank in a process of its own; gives what rank 0 returns, or the first failure of any.

    The other ranks return a record if they have failed, else None. All share the threads of this process.

    Raises:
        SystemExit: one of them was killed. It ends this process too, so that the trial has lost its worker.
    """
    context = multiprocessing.get_context(START_METHOD)
    threads = max(1, torch.get_num_threads() // size)
    ears: list[Connection] = []
    ranks: list[BaseProcess] = []
    try:
        for rank in range(size):
            ear, mouth = context.Pipe(duplex=False)
            process = context.Process(target=_run, args=(rank, threads, work, mouth))  # type: ignore[attr-defined]
            process.start()
            mouth.close()  # so that hearing ends where who speaks is killed
            ears.append(ear)
            ranks.append(process)
        return _first_told(ears, ranks)
    finally:
        for process in ranks:
            process.kill()
            process.join()


def _run(rank: int, threads: int, work: Callable[[int], Record | None], mouth: Connection) -> None:
    Thread(target=exit_with_parent, daemon=True).start()
    torch.set_num_threads(threads)
    told = work(rank)
    if rank == 0 or told is not None:
        mouth.send(told)
    sys.stdout.flush()
    Event().wait()


def exit_with_parent() -> None:
    """End this process when the one that started it dies: nobody would hear of it, and the next attempt would wait."""
    parent = multiprocessing.parent_process()
    assert parent is not None, "another process has started it"
    wait([parent.sentinel])
    os._exit(1)


def _first_told(ears: Sequence[Connection], ranks: Sequence[BaseProcess]) -> Record | None:
    ready = wait(ears)  # for something to be read, or for the end of who would write it
    try:
        told: Record | None = next(ear for ear in ears if ear in ready).recv()
    except EOFError:
        raise SystemExit(_ended(ranks)) from None
    if told is not None and told.status == "failed" and (dead := _ended(ranks)):
        raise SystemExit(dead)
    return told


def _ended(ranks: Sequence[BaseProcess]) -> str:
    """Which processes have ended, and how; empty if none has within the aftermath."""
    dead = wait([process.sentinel for process in ranks], AFTERMATH)
    for process in ranks:
        if process.sentinel in dead:
            process.join()
    codes = {rank: process.exitcode for rank, process in enumerate(ranks) if process.exitcode is not None}
    return "; ".join(f"rank {rank} ended with exit code {code}" for rank, code in codes.items())
