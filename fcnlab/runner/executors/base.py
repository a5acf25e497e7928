"""What an executor is: it runs jobs in its places, and says which have ended."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from types import TracebackType
from typing import Annotated

from pydantic import Field

from fcnlab.config.base import Config, Count
from fcnlab.config.trial import Trial
from fcnlab.settings import CHECKPOINT_EVERY

PAUSE = b"pause"
"""The line that asks a worker's trial to stop after its epoch."""

RELEASE = b"release"
"""The line that asks an idle worker to free its device: it ends the process that it keeps for the next trial."""


class Job(Config):
    """A trial, and how it is run this time; nothing of this is part of the question.

    Attributes:
        until: pause after this epoch, with a checkpoint; None runs the trial to its end.
        parts: cut each batch into so many more parts, whose gradients add up; for trials that ran out of memory.
        alone: nothing else may run on its device meanwhile.
        sharing: how many trials share its GPU at the same time.
        checkpoint_every: seconds between two checkpoints; 0 writes one after each epoch.
    """

    trial: Trial
    pause_after: Count | None = None
    micro_batches: Count = 1
    exclusive: bool = False
    sharing: Count = 1
    checkpoint_every: Annotated[float, Field(ge=0)] = CHECKPOINT_EVERY


@dataclass(frozen=True)
class JobExit:
    """A job whose worker is done with it.

    Its record says how the trial went; where there is no record, it was paused. `error` says that the worker died.
    """

    key: str
    error: str | None = None


class Executor(ABC):
    """Runs jobs, several at once. Used as a context; leaving it stops what still runs.

    When `wait` has given a job as ended, its run folder in the driver's lab holds what the trial has produced.
    """

    shares_devices: bool
    """Whether a trial may have neighbours on its device; a job that is `alone` never has."""

    @property
    @abstractmethod
    def free_slots(self) -> int:
        """How many jobs can be started now."""

    @abstractmethod
    def start(self, job: Job) -> None:
        """Start a job; an exclusive one waits until its device is idle. Only called while `free_slots` > 0."""

    @abstractmethod
    def wait(self, timeout: float) -> list[JobExit]:
        """Wait up to `timeout` seconds for jobs to end; give those that did."""

    @abstractmethod
    def pause(self) -> None:
        """Ask all that runs to stop after its epoch, with a checkpoint; `wait` gives each as ended."""

    @abstractmethod
    def close(self) -> None:
        """Stop everything that runs at once. What was checkpointed stays."""

    def __enter__(self) -> Executor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
