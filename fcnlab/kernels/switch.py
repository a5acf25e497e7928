"""Whether the Triton kernels are used; each of them has a plain PyTorch twin that gives the same results."""

from __future__ import annotations

import logging
import os
import subprocess
from functools import cache
from importlib.util import find_spec

import torch

TRITON_VARIABLE = "FCNLAB_TRITON"
"""Environment variable: 0 turns the Triton kernels off."""

INTERPRET_VARIABLE = "TRITON_INTERPRET"
"""Triton's own variable: 1 runs kernels in its interpreter, also on CPU tensors; tests use it."""

_log = logging.getLogger(__name__)


def is_triton_available(device: torch.device) -> bool:
    """Return whether Triton kernels can run on tensors of a device.

    That is so on CUDA devices of compute capability 7.0 and newer where Triton is installed and finds a C compiler, and
    on the CPU under Triton's interpreter. `FCNLAB_TRITON=0` turns the kernels off everywhere.
    """
    if os.environ.get(TRITON_VARIABLE, "1") == "0" or not _installed():
        return False
    if device.type == "cuda":
        return _supported(device.index if device.index is not None else torch.cuda.current_device())
    return os.environ.get(INTERPRET_VARIABLE, "0") == "1"


@cache
def _installed() -> bool:
    return find_spec("triton") is not None


@cache
def _supported(index: int) -> bool:
    return torch.cuda.get_device_capability(index) >= (7, 0) and _driver_starts()


@cache
def _driver_starts() -> bool:
    """Return whether Triton can launch kernels here: it compiles its launchers in C, with the headers of Python."""
    from triton.runtime import driver

    try:
        driver.active.get_current_target()
    except (RuntimeError, OSError, ImportError, subprocess.CalledProcessError) as error:
        _log.warning("Triton cannot start, PyTorch's slower operators are used instead of its kernels: %s", error)
        return False
    return True
