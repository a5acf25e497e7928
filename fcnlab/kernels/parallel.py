"""The number of threads of a C kernel."""

from __future__ import annotations

import torch

MIN_PART = 2**15
"""Smallest number of elements for which another thread is worth its start."""


def count_parts(elements: int) -> int:
    """Return the number of parts of a tensor that a kernel processes at the same time, at most PyTorch's threads.

    Args:
        elements: number of elements of the tensor.
    """
    return max(1, min(torch.get_num_threads(), elements // MIN_PART))
