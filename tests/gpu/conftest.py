"""Settings of the CUDA tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True)
def _default_settings(request: pytest.FixtureRequest) -> Iterator[None]:
    """Undo what a GPU test sets for the whole process: determinism and the report of synchronization."""
    yield
    if request.node.get_closest_marker("gpu"):
        torch.cuda.set_sync_debug_mode("default")
        torch.use_deterministic_algorithms(False)
        torch.backends.cudnn.deterministic = False
