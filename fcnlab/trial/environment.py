"""Where and with what a trial runs: part of every record, so that a figure can be traced."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

import torch

from fcnlab.training import hardware
from fcnlab.trial.record import Environment


def environment(device: torch.device, precision: hardware.Precision, *, repeatable: bool, devices: int) -> Environment:
    """Describe this process: device, precision, threads, versions, commit; and how many devices train the trial."""
    return Environment(
        device=hardware.name(device),
        precision=precision,
        threads=torch.get_num_threads(),
        repeatable=repeatable,
        system=f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        versions={name: version(name) for name in ("fcnlab", "torch", "torchvision", "timm", "numpy")},
        commit=commit(),
        devices=devices,
    )


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
