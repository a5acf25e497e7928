"""Compilation of the C kernels by the system's compiler, once per user and kind of machine."""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

from fcnlab.processor import get_processor_flags
from fcnlab.redaction import get_logger
from fcnlab.settings import cache_folder

FLAGS = ("-O3", "-march=native", "-std=gnu11", "-fno-math-errno", "-fno-trapping-math", "-shared", "-fPIC")
"""Compiler flags. Without -ffast-math, so that nan stays nan and divergence is noticed."""

KERNELS = tuple(sorted(source.stem for source in Path(__file__).parent.glob("*.c")))
"""Names of the C kernels."""

_log = get_logger(__name__)


@cache
def load_library(name: str) -> ctypes.CDLL | None:
    """Load a C kernel, which is compiled on first use and cached for all processes of the user.

    Args:
        name: one of `KERNELS`.

    Returns:
        The library, or None if there is no compiler or it fails.
    """
    compiler = shutil.which("cc")
    if compiler is None:
        _log.info("no C compiler found; PyTorch's slower operators are used instead of the C kernels")
        return None
    source = Path(__file__).with_name(f"{name}.c")
    built = cache_folder() / f"kernels-{os.getuid()}" / f"{name}-{_fingerprint(source, compiler)}.so"
    try:
        _ensure_private_folder(built.parent)
        if not built.exists():
            _compile(compiler, source, built)
        return ctypes.CDLL(str(built))
    except (OSError, subprocess.CalledProcessError) as error:
        _log.warning("%s could not be compiled, PyTorch's slower operators are used instead: %s", source.name, error)
        return None


def _ensure_private_folder(folder: Path) -> None:
    """Create a folder, or check that only this user can write to it, because code is loaded from it.

    Raises:
        OSError: the folder belongs to another user, or others can write to it.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = folder.stat()
    if status.st_uid != os.getuid() or status.st_mode & 0o022:
        raise PermissionError(f"{folder} belongs to another user or is writable by others")


def _compile(compiler: str, source: Path, built: Path) -> None:
    """Compile in a temporary folder and move the result, so that no process loads an incomplete file."""
    with tempfile.TemporaryDirectory(dir=built.parent) as folder:
        output = Path(folder) / built.name
        subprocess.run([compiler, *FLAGS, "-o", output, source, "-lm"], check=True, capture_output=True)
        os.replace(output, built)


def _fingerprint(source: Path, compiler: str) -> str:
    """Return a hash of everything that the library depends on; machines of several kinds can share a home folder."""
    version = subprocess.run([compiler, "--version"], capture_output=True, check=False).stdout
    parts = (source.read_bytes(), " ".join(FLAGS).encode(), version, _processor().encode())
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


def _processor() -> str:
    """Return the kind of the processor and its instruction sets."""
    return f"{platform.system()} {platform.machine()} {platform.processor()} {get_processor_flags()}"
