"""A worker: a process that has imported torch once and runs trials, each in a fresh child of its own.

    python -m fcnlab.execute.worker LAB DATA_ROOT THREADS DEVICES

Jobs come as JSON, one a line, on standard input; for each, one line of JSON goes out when its process has ended. The
line `pause` asks the trial that runs to stop after its epoch.
On Linux the child is forked from the worker, so a trial starts in milliseconds with nothing left over from the one
before; elsewhere it is spawned. When standard input ends, the driver is gone and so is the child. On several devices
the child starts a process for each: see `fcnlab.trial.together`.

mlflow is never imported here.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
from contextlib import suppress
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Event
from pathlib import Path
from threading import Thread

import torch

from fcnlab.errors import ModelError
from fcnlab.execute.base import PAUSE, Job
from fcnlab.places import Lab
from fcnlab.training import hardware
from fcnlab.trial.build import prepare
from fcnlab.trial.record import RunFolder
from fcnlab.trial.run import run_trial
from fcnlab.trial.together import STARTED_BY, end_with_the_parent


def main(root: str, data_root: str, threads: str, devices: str) -> None:
    """Run the jobs that come in, one after the other."""
    lab = Lab(Path(root), Path(data_root) if data_root else None)
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever a library prints must not reach the driver's ears
    context = multiprocessing.get_context(STARTED_BY)
    lines = _Lines()
    while (line := lines.next()) is not None:
        if line == PAUSE:  # it came after the trial had ended
            continue
        job = Job.model_validate_json(line)
        with suppress(ModelError):  # the trial will meet it too, and its record say so
            prepare(job.trial.variant)
        pause = context.Event()
        child = context.Process(target=_run, args=(job, lab, int(threads), int(devices), pause))  # type: ignore[attr-defined]
        child.start()
        if not _ended(child, lines, pause):
            return
        print(json.dumps({"key": job.trial.key, "exit": child.exitcode}), file=out, flush=True)


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


def _ended(child: BaseProcess, lines: _Lines, pause: Event) -> bool:
    """Wait for the child, and hand on a pause; False if the driver went away first, and then the child is stopped."""
    while True:
        if lines.take(PAUSE):  # it may have come together with the job
            pause.set()
        ready = wait([child.sentinel, 0])
        if child.sentinel in ready:
            break
        if not lines.read():
            child.terminate()
            child.join()
            return False
    child.join()
    return True


def _run(job: Job, lab: Lab, threads: int, devices: int, pause: Event) -> None:
    """Run one trial, with its output in its run folder."""
    folder = RunFolder(lab.runs, job.trial.key)
    folder.make()
    log = os.open(folder.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    Thread(target=end_with_the_parent, daemon=True).start()
    torch.set_num_threads(threads)
    hardware.keep_freed_memory(sparingly=job.trial.recipe.recompute != "none")
    run_trial(job.trial, lab, until=job.until, parts=job.parts, pause=pause.is_set, devices=devices)


if __name__ == "__main__":
    main(*sys.argv[1:])
