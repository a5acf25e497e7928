"""The driver's side of an outpost: what is asked of it, and what its answers mean."""

from __future__ import annotations

import time
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

from fcnlab.config.trial import Trial
from fcnlab.lab import Lab
from fcnlab.runner.executors.base import Job, JobExit
from fcnlab.runner.executors.ray.transfer import IncomingFiles, pieces
from fcnlab.runner.executors.ray.worker import CODE, RayWorker, Token, WorkerInfo, WorkerUpdate
from fcnlab.trial.run_folder import RunFolder

Talk = Generator[Any, Any, JobExit | None]
"""Yields what is asked of the outpost (Ray's references), is sent the answers, and returns how its job ended."""

ENVIRONMENT = {"RAY_kill_child_processes_on_worker_exit": "false"}
"""Of an outpost. Ray kills the children of an actor that ends, not theirs, and so would leave the trial running.

Left alone, the worker sees the end of its input, and stops its trial.
"""

SEEN_WITHIN = 90.0
"""Seconds until a record that was written elsewhere on a shared disk is seen here; NFS keeps what it knows for 60."""


class Unfit(Exception):
    """A node cannot run trials of this driver. `str(error)` says why."""


class RaySlot:
    """A place on some node where trials run, one at a time.

    Attributes:
        resources: what it takes of its node, by Ray's names.
        job: what it runs, or will run once it has reported.
        reserves: the node on which it was asked to be, for a job that is to be alone; such a slot has no other.
        device: the node and its GPUs that it was given; None until it has reported.
        host: the name of the node; empty until it has reported.
        asked: the reference that is to be answered next; None where it has nothing to say.
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
        """`where` are Ray's options of placement."""
        import ray

        self._lab = lab
        self._outpost: Any = (
            ray.remote(RayWorker)
            .options(
                num_cpus=resources.get("CPU", 0),
                num_gpus=resources.get("GPU", 0),
                memory=int(resources.get("memory", 0)) or None,
                max_concurrency=2,  # `pause` and `stop` come while `news` waits
                max_restarts=0,
                runtime_env={"env_vars": ENVIRONMENT},
                **where,
            )
            .remote(lab.root, lab.data_root, token, threads, gpu=resources.get("GPU", 0) > 0)
        )
        self.resources = resources
        self.job = job
        self.reserves = reserves
        self.device: tuple[str, str] | None = None
        self.host = ""
        self._shares_disk = True
        self._sent: dict[Path, tuple[int, int]] = {}
        self._runs = self._pausing = False
        self._talk: Talk = self._introduction()
        self.asked: Any = next(self._talk)

    def begin(self, job: Job) -> None:
        """Run a job; the slot has reported and is idle."""
        self.job = job
        self._pausing = False
        self._talk = self._conversation(job)
        self.asked = next(self._talk)

    def hear(self, answer: Any) -> JobExit | None:
        """Go on with the answer to what was asked; returns how the job ended, if it has.

        Raises:
            Unfit: the node cannot run trials of this driver.
        """
        try:
            self.asked = self._talk.send(answer)
        except StopIteration as done:
            self.asked = None
            ended: JobExit | None = done.value
            if ended is not None:
                self.job = None
            return ended
        return None

    def pause(self) -> None:
        """Ask the job to stop after its epoch."""
        self._pausing = True
        if self._runs:
            self._outpost.pause.remote()

    def stop(self) -> Any:
        """Stop at once what runs, and clear up; returns a reference that is there when that is done."""
        return self._outpost.stop.remote()

    def kill(self) -> None:
        """End the outpost, whatever it does."""
        import ray

        ray.kill(self._outpost)

    def _introduction(self) -> Talk:
        about: WorkerInfo = yield self._outpost.introduce.remote()
        self.device, self.host = (about.node, about.gpus), about.host
        if about.code != CODE:
            raise Unfit(f"it has {about.code}, and the driver has {CODE}")
        if about.fault is not None:
            raise Unfit(about.fault)
        self._shares_disk = about.shares_disk
        return None

    def _conversation(self, job: Job) -> Talk:
        folder = RunFolder(self._lab.runs, job.trial.key)
        if not self._shares_disk:
            for batch in pieces(self._lab.root, self._unsent(job.trial)):
                yield self._outpost.take.remote(batch)
        if self._pausing:
            return JobExit(job.trial.key)
        self._runs = True
        yield self._outpost.start.remote(job.model_dump_json())
        arrivals = IncomingFiles(folder.path)
        ended = None
        while ended is None:
            news: WorkerUpdate = yield self._outpost.news.remote()
            arrivals.take(news.pieces)
            if news.whole:
                arrivals.place()
            ended = news.ended
        self._runs = False
        return _seen(folder, ended) if news.recorded else ended

    def _unsent(self, trial: Trial) -> list[str]:
        """The files below the lab that a trial needs and its outpost has not; it keeps all but run folders."""
        fresh = []
        for file in needed(self._lab, trial):
            status = file.stat()
            stamp = (status.st_size, status.st_mtime_ns)
            if self._sent.get(file) != stamp:
                fresh.append(file.relative_to(self._lab.root).as_posix())
            if not file.is_relative_to(self._lab.runs):
                self._sent[file] = stamp
        return fresh


def needed(lab: Lab, trial: Trial) -> list[Path]:
    """The files below the lab that a trial needs: to go on, to start from another, its weights, its lists of ids."""
    own = RunFolder(lab.runs, trial.key)
    files = [own.progress, own.log, own.checkpoint]
    if trial.init_from is not None:
        start = RunFolder(lab.runs, trial.init_from)
        files += [start.record, start.weights]
    named = [trial.variant.backbone.weights_file, *trial.dataset.list_files]
    files += [lab.root / Path(name).expanduser() for name in named if name is not None]
    return [file for file in files if file.is_relative_to(lab.root) and file.is_file()]


def _seen(folder: RunFolder, ended: JobExit) -> JobExit:
    """Wait until the record of a trial that ended elsewhere is seen here."""
    deadline = time.monotonic() + SEEN_WITHIN
    while folder.read() is None:
        if time.monotonic() > deadline:
            return JobExit(ended.key, "it left a record on the shared disk that did not arrive here")
        list(folder.path.iterdir())  # makes NFS look again
        time.sleep(0.05)
    folder.checkpoint.unlink(missing_ok=True)  # one that was sent to a worker without a shared disk
    return ended
