"""Interruptions of a run: Ctrl-C, signals of a cluster, SIGHUP of a closed terminal, and the end of a reading program.

In `fcnlab grid run ... | tee run.log`, Ctrl-C also ends `tee`, and in `... | head`, the reading program ends first.
"""

from __future__ import annotations

import errno
import math
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, TextIO, cast

from fcnlab.redaction import RedactedStream

OF_CLUSTERS = (signal.SIGTERM, signal.SIGUSR1)
"""Signals that clusters send before a time limit, the second one if a job asks for it (`--signal=USR1@300`)."""

SIGNALS = (signal.SIGINT, *OF_CLUSTERS, signal.SIGHUP)

SAME_WITHIN = 1.0
"""Seconds in which a signal of a cluster belongs to the one before: `timeout` sends it to the process and to its group.

A signal also belongs to the end of the program that reads the output: Ctrl-C is sent to both programs of a pipe.
"""


class Interrupts:
    """Handler of interruptions: while trials run, the first pauses them after their epoch, the second stops at once.

    A context manager: it handles the signals in its context, and replaces `sys.stdout` and `sys.stderr` there by
    streams that discard the output once nothing reads it. If that is standard output, trials pause as after SIGHUP.
    SIGHUP stays ignored where it was, as under `nohup`.

    Attributes:
        received: whether there was a signal, or the program that reads standard output has ended.
        lost_reader: whether that program has ended before any signal.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Create a handler that handles no signal yet.

        Args:
            clock: returns seconds.
        """
        self.received = self.lost_reader = False
        self._clock = clock
        self._last = self._lost = -math.inf  # times of the last signal and of the loss of the reader
        self._defers = False
        self._former: dict[int, Any] = {}
        self._streams: tuple[TextIO, TextIO] = sys.stdout, sys.stderr
        self._terminals: list[int] = []

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """In this context, the first interruption only sets `received`; outside of it, one stops at once."""
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
        self._streams = sys.stdout, sys.stderr
        # The end of a program that reads only standard error, which has no progress, interrupts nothing.
        sys.stdout = _wrap(sys.stdout, self._handle_lost_reader)
        sys.stderr = _wrap(sys.stderr, lambda: None)
        return self

    def __exit__(self, *_: object) -> None:
        sys.stdout, sys.stderr = self._streams
        for number, handler in self._former.items():
            signal.signal(number, handler)

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGHUP:
            self._leave_terminals()
        before, self._last = self._last, self._clock()
        # The kernel and the shell both send SIGHUP when a terminal is closed.
        self._interrupt(
            repeats=number == signal.SIGHUP
            or self._last - self._lost < SAME_WITHIN
            or (number in OF_CLUSTERS and self._last - before < SAME_WITHIN)
        )

    def _handle_lost_reader(self) -> None:
        """Interrupt the run as a closed terminal does, unless it is interrupted already."""
        if not self.received:
            self.lost_reader, self._lost = True, self._clock()
        self._interrupt(repeats=True)

    def _interrupt(self, *, repeats: bool) -> None:
        """Pause or stop the run.

        Args:
            repeats: whether the interruption belongs to the one before, if there was one.
        """
        if self.received and repeats:
            return
        is_first, self.received = not self.received, True
        if not (is_first and self._defers):
            raise KeyboardInterrupt

    def _leave_terminals(self) -> None:
        """Discard the output to a terminal that was closed: each further line would be an error."""
        for descriptor in self._terminals:
            _discard_output(descriptor)


class _ReadStream:
    """An output stream that discards its output once nothing reads it.

    The program that read a pipe has ended, or a terminal was closed and the signal of that is ignored.
    """

    def __init__(self, stream: TextIO, on_loss: Callable[[], None]) -> None:
        """Wrap a stream.

        Args:
            stream: standard output or standard error.
            on_loss: function to call when the program that reads a pipe has ended.
        """
        self._stream = stream
        self._on_loss = on_loss
        self._is_terminal = stream.isatty()

    def write(self, text: str) -> int:
        with self._discard_if_lost():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with self._discard_if_lost():
            self._stream.flush()

    @contextmanager
    def _discard_if_lost(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno != (errno.EIO if self._is_terminal else errno.EPIPE):
                raise
            _discard_output(self._stream.fileno())
            self._stream.flush()  # the stream keeps the text that it could not write
            if not self._is_terminal:
                self._on_loss()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _wrap(stream: TextIO, on_loss: Callable[[], None]) -> TextIO:
    if cast("TextIO | None", stream) is None:  # the process has been started without it
        return stream
    if isinstance(stream, RedactedStream):  # it stays outside, so that a text without secrets can be written past it
        return cast(TextIO, RedactedStream(_wrap(stream.original, on_loss)))
    return cast(TextIO, _ReadStream(stream, on_loss))


def _discard_output(descriptor: int) -> None:
    """Discard what is written to a file descriptor from now on."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)
