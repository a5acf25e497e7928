"""Constants of the whole package; importing them loads nothing else."""

from __future__ import annotations

IGNORE_INDEX = 255
"""Label of pixels that no loss and no metric counts, in every decoded dataset."""

NVML = "libnvidia-ml.so.1"
"""NVIDIA's management library. It is part of the driver, also in containers that have no `nvidia-smi`."""
