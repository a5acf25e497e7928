"""Name and feature flags of the processor."""

from __future__ import annotations

import platform
from pathlib import Path

from fcnlab.paths import exists


def get_processor_name() -> str:
    """Return the model name of the processor, such as `AMD EPYC`, or its architecture if the name is unknown."""
    return _read_cpuinfo("model name").partition(":")[2].strip() or platform.processor() or platform.machine()


def get_processor_flags() -> str:
    """Return the feature flags on Linux, such as avx512_bf16 or amx_bf16; an empty string on other systems."""
    return _read_cpuinfo("flags", "features")


def _read_cpuinfo(*keys: str) -> str:
    """Return the first line of /proc/cpuinfo that starts with one of the keys, or an empty string."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines() if exists(cpuinfo) else []
    return next((line for line in lines if line.lower().startswith(keys)), "")
