"""Timings of fcnlab and its peers, alternately in one run; the peers are in benchmarks/peers, as users write them."""

from __future__ import annotations

import ast
import importlib.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from fcnlab.errors import RunError

REPOSITORY = Path(__file__).resolve().parents[2]
PEERS = REPOSITORY / "benchmarks" / "peers"
DISTRIBUTIONS = {"PIL": "pillow", "segmentation_models_pytorch": "segmentation-models-pytorch"}
"""Names on PyPI of packages that are imported by another name."""


def python_path() -> str:
    """Return the `PYTHONPATH` of child processes, in which `benchmarks` can be imported."""
    return os.pathsep.join(filter(None, (str(REPOSITORY), os.environ.get("PYTHONPATH"))))


def peer(name: str) -> ModuleType:
    """Import the module benchmarks/peers/<name>.py of the checkout.

    Args:
        name: name of the module.

    Raises:
        RunError: the module does not exist, or the peer's own packages are not installed.
    """
    path = _find(name)
    module_name = f"fcnlab_peer_{name}"
    spec = importlib.util.spec_from_file_location(module_name, path)
    assert spec is not None and spec.loader is not None, "it is a Python file"
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module  # dataclasses and pickle look a class's module up here
    try:
        spec.loader.exec_module(module)
    except ModuleNotFoundError as error:
        del sys.modules[module_name]
        raise _missing(path.name, str(error.name)) from None
    return module


def check_peers(*names: str) -> None:
    """Check that the packages of peers are installed, without importing them: before the first lap, not in it.

    Args:
        names: names of modules in benchmarks/peers.

    Raises:
        RunError: a module does not exist, or one of its packages is not installed.
    """
    for name in names:
        path = _find(name)
        for package in _list_packages(path):
            if (PEERS / f"{package}.py").is_file():  # another peer, which a script imports
                check_peers(package)
            elif importlib.util.find_spec(package) is None:
                raise _missing(path.name, package)


def _find(name: str) -> Path:
    path = PEERS / f"{name}.py"
    if not path.is_file():
        raise RunError(f"{path}: no such file")
    return path


def _list_packages(path: Path) -> Iterator[str]:
    """Yield the packages that a module imports whenever it is imported."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


def _missing(file: str, package: str) -> RunError:
    distribution = DISTRIBUTIONS.get(package, package)
    return RunError(f"benchmarks/peers/{file} needs {package}, which is not installed: pip install {distribution}")
