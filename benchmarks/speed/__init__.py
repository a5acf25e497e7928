"""Timings of fcnlab and its peers, alternately in one run; the peers are in benchmarks/peers, as users write them."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType

from fcnlab.errors import RunError

REPOSITORY = Path(__file__).resolve().parents[2]
PEERS = REPOSITORY / "benchmarks" / "peers"


def python_path() -> str:
    """Return the `PYTHONPATH` of child processes, in which `benchmarks` can be imported."""
    return os.pathsep.join(filter(None, (str(REPOSITORY), os.environ.get("PYTHONPATH"))))


def peer(name: str) -> ModuleType:
    """Import the module benchmarks/peers/<name>.py of the checkout.

    Args:
        name: of the module.

    Raises:
        RunError: the module does not exist, or the peer's own packages are not installed.
    """
    path = PEERS / f"{name}.py"
    if not path.is_file():
        raise RunError(f"{path}: no such file")
    module_name = f"fcnlab_peer_{name}"
    spec = importlib.util.spec_from_file_location(module_name, path)
    assert spec is not None and spec.loader is not None, "it is a Python file"
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module  # dataclasses and pickle look a class's module up here
    try:
        spec.loader.exec_module(module)
    except ModuleNotFoundError as error:
        del sys.modules[module_name]
        raise RunError(f"{path.name} needs {error.name}, which is not installed: pip install {error.name}") from None
    return module
