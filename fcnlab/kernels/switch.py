"""Selection between Triton kernels and their fallbacks in PyTorch operators, which give the same results."""

from __future__ import annotations

import os
import subprocess
from functools import cache
from importlib.util import find_spec

import torch

from fcnlab.redaction import get_logger

TRITON_VARIABLE = "FCNLAB_TRITON"
"""Environment variable: 0 turns the Triton kernels off."""

INTERPRET_VARIABLE = "TRITON_INTERPRET"
"""Environment variable of Triton: 1 runs kernels in its interpreter, also on CPU tensors; used by tests."""

_log = get_logger(__name__)


def is_triton_available(device: torch.device) -> bool:
    """Return True if Triton kernels can run on a device.

    This requires a CUDA device of compute capability 7.0 or newer, Triton and a C compiler, or Triton's interpreter for
    the CPU. `FCNLAB_TRITON=0` turns the kernels off everywhere.

    Args:
        device: device of the tensors.
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
    """Return True if Triton can launch kernels; it compiles its launchers in C with the headers of Python."""
    from triton.runtime import driver

    try:
        driver.active.get_current_target()
    except (RuntimeError, OSError, ImportError, subprocess.CalledProcessError) as error:
        _log.warning("Triton cannot start, PyTorch's slower operators are used instead of its kernels: %s", error)
        return False
    return True
