"""Parallel calls of C kernels, which release Python's global lock."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")

MIN_PART = 2**18
"""Smallest number of elements for which another thread is worth its start."""


def split(rows: int, size: int) -> list[slice]:
    """Split the rows of a tensor into consecutive parts, at most as many as PyTorch uses threads.

    Args:
        rows: number of rows, at least 1.
        size: elements of a row.
    """
    parts = max(1, min(torch.get_num_threads(), rows * size // MIN_PART))
    length = -(-rows // parts)
    return [slice(start, min(start + length, rows)) for start in range(0, rows, length)]


def run_each(work: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    """Call a function with each item, in as many threads as PyTorch uses.

    Args:
        work: the function.
        items: its arguments.

    Returns:
        The results, in the order of the items.
    """
    threads = torch.get_num_threads()
    if len(items) == 1 or threads == 1:
        return [work(item) for item in items]
    # The pool belongs to a process: a forked child has none of its threads.
    return list(_pool(os.getpid(), threads).map(work, items))


@cache
def _pool(_process: int, threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="kernels")
