"""Hardware and software with which a trial runs, as a record keeps them."""

from __future__ import annotations

import platform
import re
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from fcnlab.constants import Precision
from fcnlab.training import hardware
from fcnlab.trial.commit import find_commit
from fcnlab.trial.record import Environment
from fcnlab.version import __version__

PACKAGES = ("torch", "torchvision", "timm", "segmentation-models-pytorch", "numpy")
"""Packages whose versions are recorded, besides fcnlab."""

DRIVER_FILE = Path("/proc/driver/nvidia/version")
"""File in which NVIDIA's kernel module reports its version."""

TRANSFORM_PACKAGES = ("albumentations", "opencv-python-headless")
"""Packages whose versions are recorded where they are installed and the recipe has a transform."""


def describe_environment(
    device: torch.device,
    precision: Precision,
    *,
    repeatable: bool,
    devices: int = 1,
    trials_per_device: int = 1,
    transforms: bool = False,
) -> Environment:
    """Describe the hardware and software of this process.

    Args:
        device: the device that trains.
        precision: precision of the forward pass.
        repeatable: whether results repeat bit for bit.
        devices: number of devices that train the trial.
        trials_per_device: number of trials that share the device.
        transforms: whether the recipe has a transform.

    Returns:
        The environment.
    """
    packages = (*PACKAGES, *filter(_is_installed, TRANSFORM_PACKAGES)) if transforms else PACKAGES
    on_gpu = device.type == "cuda"
    return Environment(
        device=hardware.get_device_name(device),
        precision=precision,
        threads=torch.get_num_threads(),
        repeatable=repeatable,
        system=f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        versions={"fcnlab": __version__} | {name: version(name) for name in packages},
        commit=find_code_commit(),
        devices=devices,
        kind="cuda" if on_gpu else "cpu",
        trials_per_device=trials_per_device,
        cuda=torch.version.cuda if on_gpu else None,
        cudnn=str(torch.backends.cudnn.version()) if on_gpu else None,
        driver=_read_driver_version() if on_gpu else None,
    )


@cache
def find_code_commit() -> str | None:
    """Return the git commit of fcnlab's code at the first call.

    A process keeps the code that it has imported, so that a worker calls it once, before its trials; the commands of
    git take longer than a tenth of a short trial.

    Returns:
        See `find_commit`.
    """
    return find_commit()


def _is_installed(package: str) -> bool:
    try:
        version(package)
    except PackageNotFoundError:
        return False
    return True


def _read_driver_version() -> str | None:
    """Return the version of the NVIDIA driver, such as `580.95.05`; None if its file has none."""
    try:
        match = re.search(r"\b\d{3,}\.\d+(\.\d+)?\b", DRIVER_FILE.read_text(encoding="utf-8"))
    except OSError:
        return None
    return match[0] if match else None
