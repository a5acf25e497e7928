"""What an executor is: it starts trials, and says which have ended."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from types import TracebackType

from fcnlab.spec.trial import Trial


@dataclass(frozen=True)
class Ended:
    """A trial whose worker is done with it. Its record says how it went; `lost` says that no record can be there."""

    key: str
    lost: str | None = None


class Executor(ABC):
    """Runs trials in `slots` places at once. Used as a context; leaving it stops what still runs."""

    slots: int

    @abstractmethod
    def start(self, trial: Trial) -> None:
        """Start a trial. Only called while fewer than `slots` trials run."""

    @abstractmethod
    def wait(self, timeout: float) -> list[Ended]:
        """Wait up to `timeout` seconds for trials to end; give those that did."""

    @abstractmethod
    def close(self) -> None:
        """Stop everything that runs. What was checkpointed stays."""

    def __enter__(self) -> Executor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
