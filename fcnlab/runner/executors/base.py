"""The interface of executors: they run jobs in slots and report which jobs have ended."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection
from dataclasses import dataclass
from typing import Annotated, Literal, Self

from pydantic import Field

from fcnlab.config.trial import Trial
from fcnlab.settings import RunOptions
from fcnlab.trial.settings import TrialSettings

PAUSE = b"pause"
"""Line on a worker's input that pauses its trial after the current epoch."""

RELEASE = b"release"
"""Line on an idle worker's input that frees its device by stopping the kept child process."""


class Job(TrialSettings):
    """A trial with the settings of one start.

    Attributes:
        exclusive: no other trial of this driver may run on its device at the same time.
        hang_timeout: least number of seconds without progress after which the processes of the trial are killed; None
            never does so.
    """

    trial: Trial
    exclusive: bool = False
    hang_timeout: Annotated[float, Field(gt=0)] | None = RunOptions.hang_timeout


@dataclass(frozen=True)
class JobExit:
    """The end of a job. The trial's record contains its result; without a record the trial was paused or lost.

    Attributes:
        key: key of the trial.
        error: reason for the loss of the worker; None if it was not lost.
        stop: reason outside of the trial for ending the run; None if there is none.
        cause: `out_of_memory` if it was lost because the memory of the machine ran out.
    """

    key: str
    error: str | None = None
    stop: str | None = None
    cause: Literal["lost", "out_of_memory"] = "lost"


class Executor(ABC):
    """Runs jobs in parallel. A context manager: on exit it stops the running jobs.

    When `wait` returns a job, the run folder in the driver's lab contains everything that the trial has produced.
    """

    shares_devices: bool
    """Whether trials share a device; an exclusive job never does."""

    @property
    @abstractmethod
    def free_slots(self) -> int:
        """Number of jobs that can be started now."""

    @property
    def waiting(self) -> Collection[str]:
        """Keys of the trials of exclusive jobs that wait until their device is idle; by default none."""
        return ()

    @abstractmethod
    def start(self, job: Job) -> None:
        """Start a job; an exclusive job waits until its device is idle. Requires `free_slots` > 0."""

    @abstractmethod
    def wait(self, timeout: float) -> list[JobExit]:
        """Wait up to `timeout` seconds and return the jobs that have ended."""

    @abstractmethod
    def pause(self) -> None:
        """Pause all jobs after their current epoch, with a checkpoint; `wait` returns each of them."""

    @abstractmethod
    def close(self) -> None:
        """Stop all jobs immediately. Their checkpoints remain."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
