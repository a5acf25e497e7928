"""Detection of trials that make no progress, by the heartbeat files that they touch between their steps."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fcnlab.trial.heartbeat import read_phase

FACTOR = 10
"""A trial hangs if it has made no progress for this multiple of its own longest time between two signs of progress."""

START_TIMEOUT = 300.0
"""Least number of seconds from the start of a worker or trial to the first sign of progress: torch is imported."""

LONGEST_PAUSE = 60.0
"""Seconds between two observations after which the observer itself was suspended, and all times start again."""


@dataclass
class _Observed:
    """A running trial.

    Attributes:
        file: its heartbeat.
        timeout: least number of seconds without progress after which it hangs.
        stamp: time of the last change of the file, in nanoseconds; None without a file.
        since: when the last change was seen, by the observer's clock.
        longest: longest time between two changes so far, in seconds; None before the first change.
    """

    file: Path
    timeout: float
    stamp: int | None
    since: float
    longest: float | None = None

    @property
    def limit(self) -> float:
        """Seconds without progress after which the trial hangs."""
        return max(self.timeout, START_TIMEOUT if self.longest is None else FACTOR * self.longest)

    def update(self, stamp: int | None, now: float) -> None:
        """Note a change of the file."""
        self.longest = 0.0 if self.longest is None else max(self.longest, now - self.since)
        self.stamp, self.since = stamp, now


class HangDetector:
    """Observes the heartbeats of the trials of one machine.

    Only this process's own clock is used: a trial hangs if this process has seen its file unchanged for too long. If
    this process was not scheduled for a while, as on a suspended laptop, the trials were not either, and get their
    whole time again.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Create a detector that observes nothing yet.

        Args:
            clock: returns seconds.
        """
        self._clock = clock
        self._last = clock()
        self._observed: dict[str, _Observed] = {}

    def watch(self, key: str, file: Path, timeout: float | None) -> None:
        """Begin to observe a trial that starts now.

        Args:
            key: key of the trial.
            file: its heartbeat, which need not exist.
            timeout: least number of seconds without progress after which it hangs; None does not observe it.
        """
        if timeout is not None:
            self._observed[key] = _Observed(file, timeout, _stamp(file), self._clock())

    def forget(self, key: str) -> None:
        """End the observation of a trial.

        Args:
            key: key of the trial.
        """
        self._observed.pop(key, None)

    def find_hung(self) -> dict[str, str]:
        """Observe all trials now; call it at least every LONGEST_PAUSE seconds.

        Returns:
            The keys of the trials that hang, with a description. They are not observed any longer.
        """
        now = self._clock()
        was_suspended = now - self._last > LONGEST_PAUSE
        self._last = now
        hung = {}
        for key, trial in list(self._observed.items()):
            stamp = _stamp(trial.file)
            if was_suspended:
                trial.since = now
            if stamp is not None and stamp != trial.stamp:
                trial.update(stamp, now)
            elif now - trial.since > trial.limit:
                hung[key] = _describe(now - trial.since, read_phase(trial.file))
                self.forget(key)
        return hung


def _describe(seconds: float, phase: str) -> str:
    return f"no progress for {seconds:.0f} s{f' while {phase}' if phase else ''}; its processes were killed"


def _stamp(file: Path) -> int | None:
    try:
        return file.stat().st_mtime_ns
    except OSError:
        return None
