"""Kernels in several threads on small inputs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

import torch

from fcnlab.kernels import parallel


@contextmanager
def threads(count: int, least: int = 1) -> Iterator[None]:
    """Use kernels as with `torch.set_num_threads(count)`, with parts of at least this many elements."""
    with patch.object(torch, "get_num_threads", lambda: count), patch.object(parallel, "MIN_PART", least):
        yield
