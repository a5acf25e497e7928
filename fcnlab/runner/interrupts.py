"""Signals that interrupt a run: Ctrl-C, SIGTERM of a cluster, and SIGHUP when the terminal is closed."""

from __future__ import annotations

import math
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

SAME_WITHIN = 1.0
"""Seconds in which a SIGTERM belongs to the signal before: `timeout` sends it to the process and to its group."""


class Interrupts:
    """Handler of the signals: while trials run, the first one pauses them after their epoch, the second stops at once.

    A context manager: it handles the signals in its context. SIGHUP stays ignored where it was, as under `nohup`.

    Attributes:
        received: whether there was a signal.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Create a handler that handles no signal yet.

        Args:
            clock: returns seconds.
        """
        self.received = False
        self._clock = clock
        self._last = -math.inf  # time of the last signal
        self._defers = False
        self._former: dict[int, Any] = {}
        self._terminals: list[int] = []

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """In this context, the first signal only sets `received`; outside of it, a signal stops at once."""
        self._defers = True
        try:
            yield
        finally:
            self._defers = False

    def __enter__(self) -> Interrupts:
        self._terminals = [descriptor for descriptor in (1, 2) if os.isatty(descriptor)]
        ignores_hangup = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        handled = [number for number in SIGNALS if not (number == signal.SIGHUP and ignores_hangup)]
        self._former = {number: signal.signal(number, self._handle) for number in handled}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGHUP:
            self._leave_terminals()
        before, self._last = self._last, self._clock()
        # The kernel and the shell both send SIGHUP when a terminal is closed.
        if self.received and (
            number == signal.SIGHUP or (number == signal.SIGTERM and self._last - before < SAME_WITHIN)
        ):
            return
        is_first, self.received = not self.received, True
        if not (is_first and self._defers):
            raise KeyboardInterrupt

    def _leave_terminals(self) -> None:
        """Discard the output to a terminal that was closed: each further line would be an error."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for descriptor in self._terminals:
            os.dup2(nowhere, descriptor)
        os.close(nowhere)
