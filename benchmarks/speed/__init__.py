"""Timings of fcnlab and its peers, alternately in one run; the peers are in benchmarks/peers, as users write them."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any

from fcnlab.errors import RunError

PACKAGES = {"confusion": "torchmetrics", "train_smp": "segmentation_models_pytorch"}
"""Package that a peer needs beside torch, torchvision and Pillow."""


def peer(name: str) -> ModuleType:
    """Import the module benchmarks/peers/<name>.py.

    Args:
        name: name of the module.

    Raises:
        RunError: the peer's own package is not installed.
    """
    check_peers(name)
    return import_module(f"benchmarks.peers.{name}")


def check_peers(*names: str) -> None:
    """Check that the packages of peers are installed, without importing them: before the first lap, not in it.

    Args:
        names: names of modules in benchmarks/peers.

    Raises:
        RunError: a package is not installed.
    """
    for name in names:
        package = PACKAGES.get(name)
        if package is not None and find_spec(package) is None:
            remedy = f"pip install {package.replace('_', '-')}"
            raise RunError(f"benchmarks/peers/{name}.py needs {package}, which is not installed: {remedy}")


def loader_options(device: str, workers: int) -> dict[str, Any]:
    """Return the options of a peer's `DataLoader`.

    Args:
        device: `cpu` or `cuda`.
        workers: number of processes that load the data; with 0, the process that trains loads them.
    """
    return {"num_workers": workers, "pin_memory": device == "cuda", "persistent_workers": workers > 0}
