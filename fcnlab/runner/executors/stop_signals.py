"""Signals to workers and trials that a terminal or a cluster may send to all processes of a job."""

from __future__ import annotations

import math
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from fcnlab.runner.interrupts import OF_CLUSTERS, SAME_WITHIN

STOP_SIGNALS = (signal.SIGINT, *OF_CLUSTERS)


@contextmanager
def block_stop_signals() -> Iterator[None]:
    """Block the signals in this thread and in the processes that it starts in the context."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class StopSignals:
    """SIGINT, SIGTERM and SIGUSR1 to this process: the first pauses its trial after the epoch.

    A second one, or one while no trial runs, ends the process. A signal of a cluster within `SAME_WITHIN`
    seconds of the one before belongs to the same request, as for the driver.

    Attributes:
        received: true if the last trial was to pause.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Handle the signals from now on; the driver has blocked them until then.

        Args:
            clock: returns seconds.
        """
        self.received = False
        self._clock = clock
        self._runs = False
        self._last = -math.inf  # time of the last signal
        for number in STOP_SIGNALS:
            signal.signal(number, self._handle)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)

    @contextmanager
    def during_trial(self) -> Iterator[None]:
        """Keep a signal in `received` while a trial runs in the context."""
        self.received, self._runs = False, True
        try:
            yield
        finally:
            self._runs = False

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        before, self._last = self._last, self._clock()
        if self.received and number in OF_CLUSTERS and self._last - before < SAME_WITHIN:
            return
        if self.received or not self._runs:
            # An exception would be lost where Python ignores them, as in a destructor. The processes that this one has
            # started end with it.
            os._exit(128 + number)
        self.received = True
