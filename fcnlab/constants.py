"""Constants of the whole package; importing them loads nothing else."""

from __future__ import annotations

from typing import Literal

Bold = Literal["tied", "max", "none"]
"""Cells in bold: the best cell and those that do not differ significantly from it, only the best cell, or none."""

CheckpointChoice = Literal["last", "best"]
"""Which weights of a trial are used: those of the last epoch, or of the epoch with the best mIoU on val."""

Precision = Literal["fp32", "tf32", "bf16", "fp16"]
"""Precision of the forward pass."""

KEY_DIGITS = 12
"""Number of digits of a key that messages and tables show."""

IGNORE_INDEX = 255
"""Label of pixels that no loss and no metric counts, in every decoded dataset."""

NVML = "libnvidia-ml.so.1"
"""NVIDIA's management library. It is part of the driver, also in containers that have no `nvidia-smi`."""
