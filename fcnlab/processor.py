"""What the system says of its processor."""

from __future__ import annotations

import platform
from pathlib import Path


def get_processor_name() -> str:
    """What people call the processor, such as `AMD EPYC`; its architecture where the system tells no more."""
    return _cpuinfo("model name").partition(":")[2].strip() or platform.processor() or platform.machine()


def get_processor_flags() -> str:
    """Its feature flags on Linux, such as avx512_bf16 or amx_bf16; empty elsewhere."""
    return _cpuinfo("flags", "features")


def _cpuinfo(*keys: str) -> str:
    """The first line of Linux's /proc/cpuinfo that begins with one of the keys; empty where there is none."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8", errors="replace").splitlines() if info.exists() else []
    return next((line for line in lines if line.lower().startswith(keys)), "")
