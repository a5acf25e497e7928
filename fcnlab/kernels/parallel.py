"""Parallel calls of C kernels, which release Python's global lock."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import torch

MIN_PART = 2**18
"""Smallest number of elements for which another thread is worth its start."""


def run_in_parts(work: Callable[[int, int, int], None], elements: int, step: int) -> None:
    """Call `work(part, first element, number of elements)` for parts of a tensor, in as many threads as PyTorch uses.

    Args:
        work: processes a part; the parts do not overlap.
        elements: number of elements of the tensor.
        step: parts begin at multiples of it.
    """
    parts = count_parts(elements)
    length = -(-elements // (parts * step)) * step
    calls = [
        (part, start, min(length, elements - start)) for part in range(parts) if (start := part * length) < elements
    ]
    if len(calls) == 1:
        work(*calls[0])
        return
    # The pool belongs to a process: a forked child has none of its threads.
    list(_pool(os.getpid(), parts).map(lambda call: work(*call), calls))


def count_parts(elements: int) -> int:
    """Return the largest number of parts in `run_in_parts`.

    Args:
        elements: number of elements of the tensor.
    """
    return max(1, min(torch.get_num_threads(), elements // MIN_PART))


@cache
def _pool(_process: int, threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="kernels")
