"""Run the checks of the Triton kernels in another process: in Triton's interpreter, and on a GPU if there is one."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings

ON_GPU = torch.cuda.is_available()
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = torch.device("cpu" if INTERPRETED or not ON_GPU else "cuda")
"""Device on which the checks run in this process."""

COMPILED = not INTERPRETED
"""True if every new combination of `constexpr` arguments is compiled, which takes a second or more.

Checks draw these arguments from short lists then. Interpreted, they may have any values.
"""


if INTERPRETED:
    from triton.runtime import interpreter

    def fused(_: object, x: Any, y: Any, z: Any) -> Any:
        """Return x * y + z, rounded once as on a GPU; the interpreter also rounds the product."""
        exact = x.data.astype(np.float64) * y.data + z.data
        return interpreter.TensorHandle(exact.astype(z.data.dtype), z.dtype.scalar)

    interpreter.InterpreterBuilder.create_fma = fused


def examples(interpreted: int, compiled: int) -> settings:
    """Return settings of Hypothesis for checks of a kernel, without deadline and database."""
    return settings(
        deadline=None,
        database=None,
        max_examples=compiled if COMPILED else interpreted,
        suppress_health_check=list(HealthCheck),
    )


needs_gpu = pytest.mark.skipif(not ON_GPU, reason="there is no GPU")


def run_checks(*, interpreted: bool) -> None:
    """Run the files of checks in this folder with pytest, in another process.

    Triton decides at its import whether kernels are interpreted, so that it cannot be switched in this process.
    """
    pytest.importorskip("triton", reason="Triton is not installed")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_XDIST")}
    environment = inherited | {"TRITON_INTERPRET": "1" if interpreted else "0", "FCNLAB_TRITON": "1"}
    checks = map(str, sorted(Path(__file__).parent.glob("checks_of_*.py")))
    # Compilation takes most of the time on a GPU, one core per kernel.
    parallel = ["-p", "xdist", "-n", "3", "--dist", "worksteal"] if not interpreted and find_spec("xdist") else []
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *parallel, *checks],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout[-10_000:] + ended.stderr[-2_000:]


def assert_a_graph_replays(step: Callable[[], list[torch.Tensor]]) -> None:
    """Check that a step does not wait for the device, is reproducible bit for bit, and can be replayed as a graph."""
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        expected = step()
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")
        try:
            again = step()
        finally:
            torch.cuda.set_sync_debug_mode("default")
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream):
            found = step()
        graph.replay()
    torch.cuda.synchronize()
    for one, two, three in zip(expected, again, found, strict=True):
        assert torch.equal(one, two)
        assert torch.equal(one, three)
