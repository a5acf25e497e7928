"""The NVIDIA GPUs of this machine, found without loading torch."""

from __future__ import annotations

import ctypes
import os
import re
from pathlib import Path

from fcnlab.constants import NVML
from fcnlab.errors import RunError
from fcnlab.settings import Device

DEVICES = Path("/dev")


def select_gpus(device: Device = "auto") -> list[str]:
    """Return the GPUs that trials may use.

    Args:
        device: `cpu` selects none, `auto` all that are visible, `cuda` too, but at least one.

    Returns:
        The GPUs as CUDA_VISIBLE_DEVICES names them.

    Raises:
        RunError: `cuda` is required and no GPU is visible.
    """
    if device == "cpu":
        return []
    gpus = visible_gpus()
    if device == "cuda" and not gpus:
        named = os.environ.get("CUDA_VISIBLE_DEVICES")
        where = f"CUDA_VISIBLE_DEVICES is '{named}'" if named is not None else f"no {NVML}, no {DEVICES}/nvidia0"
        raise RunError(f"--device cuda: this machine shows no NVIDIA GPU ({where}); use --device cpu or auto")
    return gpus


def visible_gpus() -> list[str]:
    """Return the GPUs that CUDA programs may use, as CUDA_VISIBLE_DEVICES names them.

    CUDA_VISIBLE_DEVICES decides where it is set. Otherwise NVML counts the GPUs, and where NVML is missing or fails,
    the device files of the driver do: an error never means that there is no GPU.
    """
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return _parse_visible(named)
    count = _count_with_nvml()
    if count is None:
        count = sum(re.fullmatch(r"nvidia\d+", file.name) is not None for file in DEVICES.glob("nvidia*"))
    return [str(index) for index in range(count)]


def _parse_visible(text: str) -> list[str]:
    """Parse CUDA_VISIBLE_DEVICES: indices, or UUIDs of GPUs or MIG instances; CUDA stops at the first invalid one."""
    names: list[str] = []
    for name in map(str.strip, text.split(",")):
        if not re.fullmatch(r"\d+|(GPU|MIG)-\S+", name):
            break
        names.append(name)
    return names


def _count_with_nvml() -> int | None:
    """Return the number of GPUs by NVML; None where it is not installed or answers with an error."""
    try:
        nvml = ctypes.CDLL(NVML)
        if nvml.nvmlInit_v2() != 0:
            return None
        count = ctypes.c_uint()
        code = nvml.nvmlDeviceGetCount_v2(ctypes.byref(count))
        nvml.nvmlShutdown()
    except (OSError, AttributeError):  # no driver, or a library without these functions
        return None
    return count.value if code == 0 else None
