"""The driver's side of a Ray worker: the requests to it and the handling of its answers.

A slot has at most one pending request, and its stage states which:

    STARTING  describe                     the answer is the description of the worker   then IDLE
    IDLE      none                         `start` begins a job                          then SENDING
    SENDING   take, once per message       no answer; the next files of the trial        then SENDING, or RUNNING
    RUNNING   start, then next_update      an update; the last one has the job's end     then RUNNING, or IDLE

Without files to send, a job goes from IDLE to RUNNING at once.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from enum import Enum, auto
from pathlib import Path
from typing import Any

from fcnlab.config.trial import Trial
from fcnlab.lab import Lab
from fcnlab.paths import expand_home, is_file
from fcnlab.runner.executors.base import Job, JobExit
from fcnlab.runner.executors.ray.transfer import FileChunk, IncomingFiles, read_chunks
from fcnlab.runner.executors.ray.worker import CODE, RayWorker, Token, WorkerInfo, WorkerUpdate
from fcnlab.settings import ALLOW_EXTENSIONS_VARIABLE
from fcnlab.trial.run_folder import RunFolder

ENVIRONMENT = {"RAY_kill_child_processes_on_worker_exit": "false"}
"""Environment variables of a Ray worker.

Ray kills the children of an ended actor, but not their children: the trial would go on running. With this setting, the
worker process reads the end of its input and stops its trial.
"""

RECORD_TIMEOUT = 90.0
"""Seconds until a record on a shared disk must be visible; NFS caches attributes for up to 60."""


def _permission() -> dict[str, str]:
    """Return the environment variable that allows extensions, if it is set."""
    value = os.environ.get(ALLOW_EXTENSIONS_VARIABLE)
    return {ALLOW_EXTENSIONS_VARIABLE: value} if value is not None else {}


class _Stage(Enum):
    """Stage of a slot; see the module."""

    STARTING = auto()
    IDLE = auto()
    SENDING = auto()
    RUNNING = auto()


class UnsuitableNode(Exception):
    """A node cannot run trials of this driver; the message is the reason."""


class RaySlot:
    """A Ray worker that runs one trial at a time.

    Attributes:
        resources: resources of the actor, by Ray's names.
        job: the current job, or the first job of a worker that is starting.
        reserves: id of the node that it uses for one exclusive job; None otherwise.
        device: id of the node and the assigned GPUs; None until the worker has started.
        host: name of the node; empty until the worker has started.
        request: reference of the pending request; None if there is none.
    """

    def __init__(
        self,
        lab: Lab,
        token: Token,
        threads: int,
        resources: Mapping[str, float],
        where: Mapping[str, Any],
        *,
        job: Job | None = None,
        reserves: str | None = None,
    ) -> None:
        """Start the actor.

        Args:
            lab: the driver's lab.
            token: file that reveals whether the worker shares the lab's disk.
            threads: CPU threads of a trial.
            resources: resources of the actor, by Ray's names.
            where: Ray's options of placement.
            job: first job of the worker.
            reserves: id of the node that is reserved for an exclusive job.
        """
        self._lab = lab
        self._worker = _start_actor(lab, token, threads, resources, where)
        self.resources = resources
        self.job = job
        self.reserves = reserves
        self.device: tuple[str, str] | None = None
        self.host = ""
        self._shares_disk = True
        self._sent: dict[Path, tuple[int, int]] = {}
        self._pausing = False
        self._outgoing: Iterator[tuple[FileChunk, ...]] = iter(())
        self._arrivals: IncomingFiles | None = None
        self._stage = _Stage.STARTING
        self.request: Any = self._worker.describe.remote()

    def start(self, job: Job) -> None:
        """Run a job; the worker has started and is idle.

        Args:
            job: the job.
        """
        self.job = job
        self._pausing = False
        self._outgoing = iter(()) if self._shares_disk else read_chunks(self._lab.root, self._unsent(job.trial))
        self._arrivals = IncomingFiles(RunFolder(self._lab.runs, job.trial.key).path)
        self._send_next(job)

    def handle(self, answer: Any) -> JobExit | None:
        """Handle the answer to the pending request and send the next one.

        Args:
            answer: the answer.

        Returns:
            The end of the job; None if the worker has just started or the job continues.

        Raises:
            UnsuitableNode: the node cannot run trials of this driver.
        """
        if self._stage is _Stage.STARTING:
            self._stage, self.request = _Stage.IDLE, None
            self._set_info(answer)
            return None
        assert self.job is not None, "only jobs send requests after the start"
        ended = self._send_next(self.job) if self._stage is _Stage.SENDING else self._receive(self.job, answer)
        if ended is not None:
            self._stage, self.request = _Stage.IDLE, None
            self.job = None
        return ended

    def _set_info(self, info: WorkerInfo) -> None:
        self.device, self.host = (info.node, info.gpus), info.host
        if info.code != CODE:
            raise UnsuitableNode(f"it has {info.code}, and the driver has {CODE}")
        if info.error is not None:
            raise UnsuitableNode(info.error)
        self._shares_disk = info.shares_disk

    def _send_next(self, job: Job) -> JobExit | None:
        """Send the next files of a job, or start it after the last; return its end if it has been paused meanwhile."""
        chunks = next(self._outgoing, None)
        if chunks is not None:
            self._stage, self.request = _Stage.SENDING, self._worker.take.remote(chunks)
        elif self._pausing:
            return JobExit(job.trial.key)
        else:
            self._stage, self.request = _Stage.RUNNING, self._worker.start.remote(job.model_dump_json())
        return None

    def _receive(self, job: Job, update: WorkerUpdate) -> JobExit | None:
        """Store the files of an update and request the next one; return the end of the job."""
        assert self._arrivals is not None, "created when the job was started"
        self._arrivals.receive(update.chunks)
        if update.complete:
            self._arrivals.commit()
        if update.ended is None:
            self.request = self._worker.next_update.remote()
            return None
        if update.recorded:
            return _await_record(RunFolder(self._lab.runs, job.trial.key), update.ended)
        return update.ended

    def pause(self) -> None:
        """Pause the job after its epoch; a job whose files are being sent ends before it starts."""
        self._pausing = True
        if self._stage is _Stage.RUNNING:
            self._worker.pause.remote()

    def stop(self) -> Any:
        """Stop the job and remove temporary files; return a reference to the completion."""
        return self._worker.stop.remote()

    def kill(self) -> None:
        """Kill the actor."""
        import ray

        ray.kill(self._worker)

    def _unsent(self, trial: Trial) -> list[str]:
        """Return the files that a trial needs and its worker does not have; workers keep all but run folders."""
        fresh = []
        for file in needed(self._lab, trial):
            status = file.stat()
            stamp = (status.st_size, status.st_mtime_ns)
            if self._sent.get(file) != stamp:
                fresh.append(file.relative_to(self._lab.root).as_posix())
            if not file.is_relative_to(self._lab.runs):
                self._sent[file] = stamp
        return fresh


def _start_actor(lab: Lab, token: Token, threads: int, resources: Mapping[str, float], where: Mapping[str, Any]) -> Any:
    import ray

    return (
        ray.remote(RayWorker)
        .options(
            num_cpus=resources.get("CPU", 0),
            num_gpus=resources.get("GPU", 0),
            memory=int(resources.get("memory", 0)) or None,
            max_concurrency=2,  # `pause` and `stop` are called while `next_update` waits
            max_restarts=0,
            runtime_env={"env_vars": ENVIRONMENT | _permission()},
            **where,
        )
        .remote(lab.root, lab.data_root, token, threads, gpu=resources.get("GPU", 0) > 0)
    )


def needed(lab: Lab, trial: Trial) -> list[Path]:
    """Return the files of the lab that a trial needs: checkpoint, initial weights, weights file and lists of ids.

    Args:
        lab: the driver's lab.
        trial: the trial.
    """
    own = RunFolder(lab.runs, trial.key)
    files = [own.progress, own.log, own.checkpoint, own.previous_checkpoint]
    if trial.init_from is not None:
        start = RunFolder(lab.runs, trial.init_from)
        files += [start.counts, start.weights, start.record]
    named = [trial.variant.backbone.weights_file, *trial.dataset.list_files]
    files += [lab.root / expand_home(name) for name in named if name is not None]
    used = lab.extensions.used(trial.variant.head, trial.dataset, trial.recipe)
    files += [lab.root / file for extension in used.values() for file in extension.files]
    return [file for file in files if file.is_relative_to(lab.root) and is_file(file)]


def _await_record(folder: RunFolder, ended: JobExit) -> JobExit:
    """Wait until the record of a remote trial is visible on the shared disk."""
    deadline = time.monotonic() + RECORD_TIMEOUT
    while folder.read() is None:
        if time.monotonic() > deadline:
            return JobExit(ended.key, "it left a record on the shared disk that did not arrive here")
        list(folder.path.iterdir())  # refreshes the cache of NFS
        time.sleep(0.05)
    for file in (folder.checkpoint, folder.previous_checkpoint):
        file.unlink(missing_ok=True)  # it was sent to a worker without a shared disk
    return ended
