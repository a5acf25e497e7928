"""Run the checks of a Triton kernel: in Triton's interpreter in another process, and on a GPU where there is one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ON_GPU = torch.cuda.is_available()
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = torch.device("cpu" if INTERPRETED or not ON_GPU else "cuda")
"""Device on which the checks run in this process."""

needs_gpu = pytest.mark.skipif(not ON_GPU, reason="there is no GPU")


def run_checks(file: str, *, interpreted: bool) -> None:
    """Run a file of checks beside this one with pytest, in a process of its own.

    Triton decides at its import whether kernels are interpreted, so that it cannot be switched in this process.
    """
    pytest.importorskip("triton", reason="Triton is not installed")
    environment = os.environ | {"TRITON_INTERPRET": "1" if interpreted else "0", "FCNLAB_TRITON": "1"}
    checks = Path(__file__).with_name(file)
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(checks)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout[-10_000:] + ended.stderr[-2_000:]
