"""An outpost: the process on a Ray node that runs trials for the driver, one at a time.

It is a Ray actor, and has a worker (`fcnlab.runner.executors.worker`) as the `process` executor has them. Where the
node sees the driver's lab, trials run in it. Elsewhere they run in a lab of the outpost's own in the node's temporary
folder: the driver sends what they need, and takes what comes of them piece by piece.

When the driver dies, Ray ends the outpost; the worker sees its input end and stops its trial.
"""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
import threading
import time
import uuid
from collections.abc import Generator, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from fcnlab.config.trial import NUMERICS, Trial
from fcnlab.errors import FcnlabError, RunError
from fcnlab.lab import Lab
from fcnlab.runner.executors.base import Job, JobExit
from fcnlab.runner.executors.process import ProcessExecutor, Slot
from fcnlab.runner.executors.ray.transfer import FileChunk, IncomingFiles, pieces
from fcnlab.trial.record import Failure, Record
from fcnlab.trial.run_folder import RunFolder
from fcnlab.version import __version__

POLL = 0.25
"""Seconds between two looks at a trial's progress."""

KEEP_EVERY = 600.0
"""Seconds after which a checkpoint is sent to the driver while the trial runs: what the loss of a node may cost."""

CODE = f"fcnlab {__version__}, numerics {NUMERICS}"
"""What a node must have in common with the driver."""


@dataclass(frozen=True)
class Token:
    """A file in the driver's lab: who reads this text in it has the driver's disk."""

    path: Path
    text: str

    @classmethod
    def write(cls, lab: Lab) -> Token:
        """Put one into a lab."""
        token = cls(lab.root / ".fcnlab" / f"ray-{uuid.uuid4().hex}", uuid.uuid4().hex)
        token.path.parent.mkdir(parents=True, exist_ok=True)
        token.path.write_text(token.text, encoding="utf-8")
        return token

    def is_here(self) -> bool:
        """Whether this process sees the file, and could write beside it."""
        try:
            return self.path.read_text(encoding="utf-8") == self.text and os.access(self.path, os.W_OK)
        except OSError:
            return False


@dataclass(frozen=True)
class WorkerInfo:
    """What an outpost says of itself: its node, the GPUs that Ray gave it, whether it works in the driver's lab.

    `fault` says why it cannot run trials, where torch does not see those GPUs.
    """

    node: str
    host: str
    gpus: str
    shares_disk: bool
    code: str = CODE
    fault: str | None = None


@dataclass(frozen=True)
class WorkerUpdate:
    """Of a trial: pieces of its files, whether these are whole now, how it ended if it has, and if with a record."""

    pieces: tuple[FileChunk, ...] = ()
    whole: bool = False
    ended: JobExit | None = None
    recorded: bool = False


class RayWorker:
    """Runs the trials that it is given. `news` waits, while `pause` and `stop` are called from another thread."""

    def __init__(self, root: Path, data_root: Path | None, token: Token, threads: int, *, gpu: bool) -> None:
        self._gpus = os.environ.get("CUDA_VISIBLE_DEVICES", "") if gpu else ""
        self._scratch = None if token.is_here() else Scratch()
        self._lab = Lab(self._scratch.path if self._scratch else root, _data_root(data_root))
        self._executor = ProcessExecutor(self._lab, [Slot(threads, self._gpus or None)])
        self._news: Iterator[WorkerUpdate] = iter(())
        self._telling = threading.Lock()
        self._pausing = threading.Event()
        self._stopping = threading.Event()

    def introduce(self) -> WorkerInfo:
        """Say what this outpost is."""
        import ray

        fault = None
        try:
            self._executor.await_ready()
        except RunError as error:
            fault = str(error)
        node = ray.get_runtime_context().get_node_id()
        return WorkerInfo(node, socket.gethostname(), self._gpus, shares_disk=self._scratch is None, fault=fault)

    def take(self, arrived: tuple[FileChunk, ...]) -> None:
        """Take in pieces of files that a trial needs, below the lab."""
        assert self._scratch is not None, "the lab has them"
        self._scratch.arrivals.take(arrived)

    def start(self, job_as_json: str) -> None:
        """Start a job; what it needs has come."""
        job = Job.model_validate_json(job_as_json)
        if self._scratch is not None:
            self._scratch.arrivals.place()
        self._news = self._run(job)

    def news(self) -> WorkerUpdate:
        """Wait for the next news of the job, the last of which say how it ended."""
        with self._telling:
            return next(self._news)

    def pause(self) -> None:
        """Ask the trial to stop after its epoch; it may come before the trial, which then stops after its first."""
        self._pausing.set()
        self._executor.pause()

    def stop(self) -> None:
        """Stop what runs at once, and leave nothing behind."""
        self._stopping.set()
        with self._telling:
            self._executor.close()
        if self._scratch is not None:
            self._scratch.remove()

    def _run(self, job: Job) -> Iterator[WorkerUpdate]:
        folder = RunFolder(self._lab.runs, job.trial.key)
        if (fault := self._fault(job.trial)) is not None:
            folder.create()
            folder.finish(Record.create(job.trial, "failed", failure=Failure(cause="exception", message=fault)))
            ended = JobExit(job.trial.key)
        else:
            self._executor.start(job)
            ended = yield from self._until_it_ends(job, folder)
        recorded = folder.record.exists()
        if self._scratch is not None and not self._stopping.is_set():
            yield from _shipment(folder.path, _produced(folder))
            shutil.rmtree(self._lab.runs)
        self._pausing.clear()
        yield WorkerUpdate(ended=ended, recorded=recorded)

    def _fault(self, trial: Trial) -> str | None:
        """What is wrong with this node's data or weights; None if they are those of the trial."""
        try:
            found = self._lab.fingerprints(trial.variant, trial.dataset)
        except FcnlabError as error:
            return f"on {socket.gethostname()}: {error}"
        if found == (trial.data, trial.weights):
            return None
        what = "the data" if found[0] != trial.data else "the weights file"
        return f"on {socket.gethostname()}: {what} differs from what the driver has; FCNLAB_DATA there may say where"

    def _until_it_ends(self, job: Job, folder: RunFolder) -> Generator[WorkerUpdate, None, JobExit]:
        """Follow a trial that runs; its epochs go to the driver as they come, and its checkpoint from time to time."""
        shown, due = "", time.monotonic() + KEEP_EVERY
        while not (ended := self._executor.wait(POLL)):
            if self._pausing.is_set():  # said again: a worker that was reading the job may not have heard
                self._executor.pause()
            if self._stopping.is_set():
                return JobExit(job.trial.key, "it was stopped")
            lines = _text(folder.progress)
            if self._scratch is None or lines == shown:
                continue
            shown, names = lines, [folder.progress.name]
            if time.monotonic() > due:
                names, due = [folder.checkpoint.name, *names], time.monotonic() + KEEP_EVERY
            yield from _shipment(folder.path, names)
        return ended[0]


class Scratch:
    """A lab of an outpost's own, in the node's temporary folder, for as long as it lives."""

    def __init__(self) -> None:
        base = Path(tempfile.gettempdir()) / f"fcnlab-outposts-{os.getuid()}"
        base.mkdir(mode=0o700, exist_ok=True)
        for left in base.glob("*.lab"):  # by outposts that were killed
            _remove_if_nobodys(left)
        self.path = base / f"{uuid.uuid4().hex}.lab"
        self._lock = FileLock(self.path.with_suffix(".lock"))
        self._lock.acquire()
        self.path.mkdir()
        self.arrivals = IncomingFiles(self.path)

    def remove(self) -> None:
        """Remove it with all that is in it."""
        self._lock.release()
        _remove_if_nobodys(self.path)


def _remove_if_nobodys(lab: Path) -> None:
    lock = lab.with_suffix(".lock")
    with suppress(Timeout), FileLock(lock, timeout=0):
        shutil.rmtree(lab, ignore_errors=True)
        lock.unlink(missing_ok=True)


def _data_root(of_driver: Path | None) -> Path | None:
    """Where the data lies on this node: where the driver has it, else where FCNLAB_DATA says."""
    here = os.environ.get("FCNLAB_DATA")
    if here and not (of_driver is not None and of_driver.is_dir()):
        return Path(here)
    return of_driver


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""


def _shipment(root: Path, names: Iterable[str]) -> Iterator[WorkerUpdate]:
    for batch in pieces(root, names):
        yield WorkerUpdate(batch)
    yield WorkerUpdate(whole=True)


def _produced(folder: RunFolder) -> list[str]:
    """What a trial has left in its run folder; the record comes last, since it says that all else is there."""
    files = [file.relative_to(folder.path) for file in folder.path.rglob("*") if file.is_file()]
    lasting = [file for file in files if file.name != folder.lock.name and not file.parts[0].startswith(".")]
    return [file.as_posix() for file in sorted(lasting, key=lambda file: file.name == folder.record.name)]
