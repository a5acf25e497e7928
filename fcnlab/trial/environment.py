"""Where and with what a trial runs: part of every record, so that a figure can be traced."""

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

PACKAGES = ("torch", "torchvision", "timm", "numpy")
"""The packages, beside fcnlab, whose versions are recorded."""


def environment(
    device: torch.device, precision: hardware.Precision, *, repeatable: bool, devices: int = 1, sharing: int = 1
) -> Environment:
    """Describe where and with what this process trains.

    Args:
        device: the device that trains.
        precision: of the forward pass, as it is used.
        repeatable: whether results repeat bit for bit.
        devices: how many devices train the trial together.
        sharing: how many trials share the device at the same time.
    """
    on_gpu = device.type == "cuda"
    return Environment(
        device=hardware.get_device_name(device),
        precision=precision,
        threads=torch.get_num_threads(),
        repeatable=repeatable,
        system=f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        versions={"fcnlab": __version__} | {name: version(name) for name in PACKAGES},
        commit=commit(),
        devices=devices,
        kind="cuda" if on_gpu else "cpu",
        sharing=sharing,
        cuda=torch.version.cuda if on_gpu else None,
        cudnn=str(torch.backends.cudnn.version()) if on_gpu else None,
        driver=driver() if on_gpu else None,
    )


def driver(file: Path = Path("/proc/driver/nvidia/version")) -> str | None:
    """Return the version of the NVIDIA driver, such as `580.95.05`; None where the kernel does not tell."""
    try:
        found = re.search(r"\b\d{3,}\.\d+(\.\d+)?\b", file.read_text(encoding="utf-8"))
    except OSError:
        return None
    return found[0] if found else None


def commit() -> str | None:
    """The git commit of the fcnlab that runs, with `+` where files differ from it; None outside a checkout."""
    package = Path(__file__).resolve().parent.parent
    if not _git(package, "ls-files", "."):  # installed: a checkout around it is somebody else's
        return None
    head = _git(package, "rev-parse", "--short=12", "HEAD")
    return f"{head}+" if head and _git(package, "status", "--porcelain", "--", ".") else head


def _git(folder: Path, *arguments: str) -> str | None:
    """What git says, or None where there is no git, no checkout or no answer in time."""
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
