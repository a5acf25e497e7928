"""Hardware and software with which a trial runs, as a record keeps them."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from importlib.metadata import version
from pathlib import Path

import torch

from fcnlab.training import hardware
from fcnlab.trial.record import Environment
from fcnlab.version import __version__

PACKAGES = ("torch", "torchvision", "timm", "segmentation-models-pytorch", "numpy")
"""Packages whose versions are recorded, besides fcnlab."""


def describe_environment(
    device: torch.device, precision: hardware.Precision, *, repeatable: bool, devices: int = 1, sharing: int = 1
) -> Environment:
    """Describe the hardware and software of this process.

    Args:
        device: the device that trains.
        precision: precision of the forward pass.
        repeatable: whether results repeat bit for bit.
        devices: number of devices that train the trial.
        sharing: number of trials that share the device.

    Returns:
        The environment.
    """
    on_gpu = device.type == "cuda"
    return Environment(
        device=hardware.get_device_name(device),
        precision=precision,
        threads=torch.get_num_threads(),
        repeatable=repeatable,
        system=f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        versions={"fcnlab": __version__} | {name: version(name) for name in PACKAGES},
        commit=find_commit(),
        devices=devices,
        kind="cuda" if on_gpu else "cpu",
        sharing=sharing,
        cuda=torch.version.cuda if on_gpu else None,
        cudnn=str(torch.backends.cudnn.version()) if on_gpu else None,
        driver=read_driver_version() if on_gpu else None,
    )


def read_driver_version(file: Path = Path("/proc/driver/nvidia/version")) -> str | None:
    """Read the version of the NVIDIA driver.

    Args:
        file: file in which the kernel module reports its version.

    Returns:
        The version, such as `580.95.05`; None if the file has none.
    """
    try:
        found = re.search(r"\b\d{3,}\.\d+(\.\d+)?\b", file.read_text(encoding="utf-8"))
    except OSError:
        return None
    return found[0] if found else None


def find_commit() -> str | None:
    """Return the git commit of fcnlab, followed by `+` if files are modified; None outside a checkout."""
    package = Path(__file__).resolve().parent.parent
    if not _git(package, "ls-files", "."):  # fcnlab is installed; a checkout around it is of another project
        return None
    head = _git(package, "rev-parse", "--short=12", "HEAD")
    return f"{head}+" if head and _git(package, "status", "--porcelain", "--", ".") else head


def _git(folder: Path, *arguments: str) -> str | None:
    """Return the output of git; None if git is missing, fails or takes too long."""
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True,
            text=True,
            timeout=10,
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
