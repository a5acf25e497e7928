"""Signals that interrupt a run: Ctrl-C, SIGTERM of a cluster, and SIGHUP when the terminal is closed."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupts:
    """Handler of the signals: while trials run, the first one pauses them after their epoch, the second stops at once.

    A context manager: it handles the signals in its context. SIGHUP stays ignored where it was, as under `nohup`.

    Attributes:
        received: whether there was a signal.
    """

    def __init__(self) -> None:
        self.received = False
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

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGHUP:
            self._leave_terminals()
        is_first, self.received = not self.received, True
        if not (is_first and self._defers):
            raise KeyboardInterrupt

    def _leave_terminals(self) -> None:
        """Discard the output to a terminal that was closed: each further line would be an error."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for descriptor in self._terminals:
            os.dup2(nowhere, descriptor)
        os.close(nowhere)
