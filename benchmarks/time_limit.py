"""A time limit on a block of code, also where it waits for a file."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def time_limit(seconds: float | None, error: BaseException) -> Iterator[None]:
    """Raise an error in the block after a number of seconds.

    The limit needs SIGALRM and the main thread; elsewhere it is not enforced. A call that never returns to the
    interpreter (a hanging kernel) is not interrupted: run such code in a separate process.

    Args:
        seconds: Time limit; None for no limit.
        error: Not an `Exception`, so that the code under test cannot handle it.
    """
    if seconds is None or threading.current_thread() is not threading.main_thread():
        yield
        return

    def expire(_signal: int, _frame: object) -> None:
        raise error

    previous = signal.signal(signal.SIGALRM, expire)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
