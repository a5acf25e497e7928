"""The Ray worker: an actor on a node that runs one trial at a time for the driver.

It contains a `process` executor with one slot. If the node shares the driver's disk, trials run in the driver's lab.
Otherwise they run in a scratch lab in the node's temporary folder: the driver sends the files that they need and
receives their results in chunks.

When the driver dies, Ray ends the actor; the worker process reads the end of its input and stops its trial.
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

from fcnlab.config.trial import NUMERICS, Trial
from fcnlab.errors import FcnlabError, RunError
from fcnlab.file_lock import FileLock, Timeout
from fcnlab.lab import Lab
from fcnlab.paths import exists, expand_home, is_file, is_folder
from fcnlab.private_folder import ensure_private_folder
from fcnlab.runner.executors.base import Job, JobExit
from fcnlab.runner.executors.process import ProcessExecutor
from fcnlab.runner.executors.ray.transfer import FileChunk, IncomingFiles, read_chunks
from fcnlab.runner.executors.slots import Slot
from fcnlab.runner.lease import create_driver_id, is_running, split_driver
from fcnlab.trial.record import Failure, Record
from fcnlab.trial.run_folder import RunFolder
from fcnlab.version import __version__

POLL = 0.25
"""Seconds between two polls of a trial's progress."""

CHECKPOINT_INTERVAL = 600.0
"""Seconds between two transfers of a checkpoint to the driver: the training time that the loss of a node can cost."""

CODE = f"fcnlab {__version__}, numerics {NUMERICS}"
"""Version that nodes must share with the driver."""


@dataclass(frozen=True)
class Token:
    """A file in the driver's lab; a worker that can read its text shares the driver's disk."""

    path: Path
    text: str

    @classmethod
    def write(cls, lab: Lab) -> Token:
        """Write a token into a lab.

        Args:
            lab: the driver's lab.
        """
        folder = lab.state / "ray"
        folder.mkdir(parents=True, exist_ok=True)
        for left in folder.iterdir():  # by drivers of this host that were killed
            owner = split_driver(left.name)
            if owner is not None and owner[0] == socket.gethostname() and not is_running(owner[1]):
                left.unlink(missing_ok=True)
        token = cls(folder / create_driver_id(), uuid.uuid4().hex)
        token.path.write_text(token.text, encoding="utf-8")
        return token

    def is_here(self) -> bool:
        """Return whether this process can read and write the file."""
        try:
            return self.path.read_text(encoding="utf-8") == self.text and os.access(self.path, os.W_OK)
        except OSError:
            return False


@dataclass(frozen=True)
class WorkerInfo:
    """Description of a started worker.

    Attributes:
        node: id of the node.
        host: name of the node.
        gpus: GPUs that Ray assigned, in the format of CUDA_VISIBLE_DEVICES.
        shares_disk: whether it works in the driver's lab.
        code: version of fcnlab.
        error: reason that prevents it from running trials; None if there is none.
    """

    node: str
    host: str
    gpus: str
    shares_disk: bool
    code: str = CODE
    error: str | None = None


@dataclass(frozen=True)
class WorkerUpdate:
    """Progress of a job.

    Attributes:
        chunks: chunks of files of the run folder.
        complete: whether the files that were sent are complete.
        ended: the end of the job; None while it runs.
        recorded: whether the trial has a record.
    """

    chunks: tuple[FileChunk, ...] = ()
    complete: bool = False
    ended: JobExit | None = None
    recorded: bool = False


class RayWorker:
    """Actor that runs jobs. `describe` and `next_update` block; `pause` and `stop` are called from another thread."""

    def __init__(self, root: Path, data_root: Path | None, token: Token, threads: int, *, gpu: bool) -> None:
        self._gpus = os.environ.get("CUDA_VISIBLE_DEVICES", "") if gpu else ""
        self._scratch = None if token.is_here() else Scratch()
        self._lab = Lab(self._scratch.path if self._scratch else root, _data_root(data_root))
        self._executor = ProcessExecutor(self._lab, [Slot(threads, self._gpus or None)])
        self._updates: Iterator[WorkerUpdate] = iter(())
        self._blocking_lock = threading.Lock()  # `stop` closes the executor between the calls that block
        self._pausing = threading.Event()
        self._stopping = threading.Event()

    def describe(self) -> WorkerInfo:
        """Wait until the worker process has started and return a description of this worker."""
        import ray

        problem = None
        try:
            with self._blocking_lock:
                self._executor.await_ready()
        except RunError as error:
            problem = str(error)
        node = ray.get_runtime_context().get_node_id()
        return WorkerInfo(node, socket.gethostname(), self._gpus, shares_disk=self._scratch is None, error=problem)

    def take(self, arrived: tuple[FileChunk, ...]) -> None:
        """Receive chunks of files that a trial needs.

        Args:
            arrived: the chunks, with paths relative to the lab.
        """
        assert self._scratch is not None, "the lab has them"
        self._scratch.arrivals.receive(arrived)

    def start(self, job_as_json: str) -> WorkerUpdate:
        """Start a job; its files have been received.

        Args:
            job_as_json: the job.

        Returns:
            An update without content: no epoch has ended.
        """
        job = Job.model_validate_json(job_as_json)
        if self._scratch is not None:
            self._scratch.arrivals.commit()
        self._updates = self._run(job)
        return WorkerUpdate()

    def next_update(self) -> WorkerUpdate:
        """Wait for the next update of the job; the last update contains its end."""
        with self._blocking_lock:
            return next(self._updates)

    def pause(self) -> None:
        """Pause the trial after its epoch; a trial that has not started pauses after its first epoch."""
        self._pausing.set()
        self._executor.pause()

    def stop(self) -> None:
        """Stop the job immediately and remove the scratch lab."""
        self._stopping.set()
        with self._blocking_lock:
            self._executor.close()
        if self._scratch is not None:
            self._scratch.remove()

    def _run(self, job: Job) -> Iterator[WorkerUpdate]:
        folder = RunFolder(self._lab.runs, job.trial.key)
        if (problem := self._check_data(job.trial)) is not None:
            folder.create()
            folder.finish(Record.create(job.trial, "failed", failure=Failure(cause="exception", message=problem)))
            ended = JobExit(job.trial.key)
        else:
            self._executor.start(job)
            ended = yield from self._follow(job, folder)
        recorded = exists(folder.record)
        if self._scratch is not None and not self._stopping.is_set():
            yield from _send_files(folder.path, _output_files(folder))
            shutil.rmtree(self._lab.runs)
        self._pausing.clear()
        yield WorkerUpdate(ended=ended, recorded=recorded)

    def _check_data(self, trial: Trial) -> str | None:
        """Return an error message if the node's data or weights differ from the trial's, else None."""
        try:
            found = self._lab.fingerprints(trial.variant, trial.dataset, trial.recipe)
        except FcnlabError as error:
            return f"on {socket.gethostname()}: {error}"
        if (found.data, found.weights) != (trial.data, trial.weights):
            what = "the data" if found.data != trial.data else "the weights file"
            return f"on {socket.gethostname()}: {what} differs from the driver's; FCNLAB_DATA there may have to be set"
        if found.extensions != trial.extensions:
            differ = f"the extensions {found.extensions} differ from the driver's {trial.extensions}"
            return f"on {socket.gethostname()}: {differ}"
        return None

    def _follow(self, job: Job, folder: RunFolder) -> Generator[WorkerUpdate, None, JobExit]:
        """Send the epochs of a running trial as they are written, and its checkpoint periodically."""
        shown, due = "", time.monotonic() + CHECKPOINT_INTERVAL
        while not (ended := self._executor.wait(POLL)):
            if self._pausing.is_set():  # repeated, because a worker that reads the job drops a pause
                self._executor.pause()
            if self._stopping.is_set():
                return JobExit(job.trial.key, "it was stopped")
            lines = _text(folder.progress)
            if self._scratch is None or lines == shown:
                continue
            shown, names = lines, [folder.progress.name]
            if time.monotonic() > due:
                names, due = [folder.checkpoint.name, *names], time.monotonic() + CHECKPOINT_INTERVAL
            yield from _send_files(folder.path, names)
        return ended[0]


class Scratch:
    """A temporary lab of a worker, in the node's temporary folder."""

    def __init__(self) -> None:
        base = Path(tempfile.gettempdir()) / f"fcnlab-ray-workers-{os.getuid()}"
        ensure_private_folder(base)
        for left in base.glob("*.lab"):  # left by workers that were killed
            _remove_if_unlocked(left)
        self.path = base / f"{uuid.uuid4().hex}.lab"
        self._lock = FileLock(self.path.with_suffix(".lock"))
        self._lock.acquire()
        self.path.mkdir()
        self.arrivals = IncomingFiles(self.path)

    def remove(self) -> None:
        """Remove the lab."""
        self._lock.release()
        _remove_if_unlocked(self.path)


def _remove_if_unlocked(lab: Path) -> None:
    lock = lab.with_suffix(".lock")
    with suppress(Timeout), FileLock(lock, timeout=0):
        shutil.rmtree(lab, ignore_errors=True)
        lock.unlink(missing_ok=True)


def _data_root(of_driver: Path | None) -> Path | None:
    """Return the data root of this node: the driver's path if it exists, else FCNLAB_DATA."""
    on_node = os.environ.get("FCNLAB_DATA")
    if on_node and not (of_driver is not None and is_folder(of_driver)):
        return expand_home(on_node)
    return of_driver


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""


def _send_files(root: Path, names: Iterable[str]) -> Iterator[WorkerUpdate]:
    for batch in read_chunks(root, names):
        yield WorkerUpdate(batch)
    yield WorkerUpdate(complete=True)


def _output_files(folder: RunFolder) -> list[str]:
    """Return the files of a run folder. The record is the last, because it marks the run as complete."""
    files = [file.relative_to(folder.path) for file in folder.path.rglob("*") if is_file(file)]
    lasting = [file for file in files if file.name != folder.lock.name and not file.parts[0].startswith(".")]
    return [file.as_posix() for file in sorted(lasting, key=lambda file: file.name == folder.record.name)]
