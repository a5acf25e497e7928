"""A parallel map over the samples of a split.

Threads suffice, because Pillow and NumPy release Python's global lock.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from fcnlab.limits import usable_cores

Result = TypeVar("Result")

Advance = Callable[[], object]
"""Called once per finished sample."""

StartProgress = Callable[[str, int], Advance]
"""Called with a label and the number of samples; returns the function to call per finished sample."""


def map_on_all_cores(
    work: Callable[[int], Result], count: int, advance: Advance | None = None
) -> Generator[Result, None, None]:
    """Yield `work(0)` to `work(count - 1)` in order, computed by one thread per core.

    The first exception of `work` is raised here. Then, and when the generator is closed, calls that have not started
    are cancelled.

    Args:
        work: function of an index.
        count: number of calls.
        advance: called after each result.
    """
    pool = ThreadPoolExecutor(usable_cores(), thread_name_prefix="samples")
    try:
        for result in pool.map(work, range(count)):
            if advance is not None:
                advance()
            yield result
    finally:
        pool.shutdown(cancel_futures=True)
