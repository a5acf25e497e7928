"""Work on every sample of a split, on all cores. Threads are enough: Pillow and numpy release the lock of Python."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Result = TypeVar("Result")

Advance = Callable[[], object]
"""Called once for each sample that is done."""


def map_on_all_cores(work: Callable[[int], Result], count: int, advance: Advance | None = None) -> Iterator[Result]:
    """Yield work(0), work(1), ... work(count - 1), in order, made by one thread a core.

    What `work` raises is raised here, and what has not begun by then is left undone.
    """
    pool = ThreadPoolExecutor(_cores(), thread_name_prefix="samples")
    try:
        for result in pool.map(work, range(count)):
            if advance is not None:
                advance()
            yield result
    finally:
        pool.shutdown(cancel_futures=True)


def _cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
