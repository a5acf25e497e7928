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

import torch

from fcnlab.atomic_file import write_atomically
from fcnlab.private_folder import ensure_private_folder
from fcnlab.processor import get_processor_flags
from fcnlab.redaction import get_logger
from fcnlab.settings import cache_folder

FLAGS = ("-O3", "-march=native", "-std=gnu11", "-fno-math-errno", "-fno-trapping-math", "-shared", "-fPIC")
"""Compiler flags. Without -ffast-math, so that nan stays nan and divergence is noticed."""

OPENMP = "-fopenmp"
"""Compiler flag for several threads; compilers that lack OpenMP compile the kernels for one thread.

With gcc on Linux, the kernels and PyTorch share one OpenMP library and its threads, so that they do not compete.
"""

C_SUFFIX = {torch.float32: "fp32", torch.bfloat16: "bf16"}
"""Ends the names of C functions for tensors of a dtype; other dtypes have none."""

KERNELS_VARIABLE = "FCNLAB_C_KERNELS"
"""Environment variable: 0 turns the C kernels off."""

KERNELS = tuple(sorted(source.stem for source in Path(__file__).parent.glob("*.c")))
"""Names of the C kernels."""

_log = get_logger(__name__)


@cache
def load_library(name: str) -> ctypes.CDLL | None:
    """Load a C kernel, which is compiled on first use and cached for all processes of the user.

    It is compiled again if the cached file has changed since.

    Args:
        name: one of `KERNELS`.

    Returns:
        The library, or None if there is no compiler, it fails, or `FCNLAB_C_KERNELS=0` turns the kernels off.
    """
    if os.environ.get(KERNELS_VARIABLE, "1") == "0":
        return None
    compiler = shutil.which("cc")
    if compiler is None:
        _log.info("no C compiler found; PyTorch's slower operators are used instead of the C kernels")
        return None
    source = Path(__file__).with_name(f"{name}.c")
    built = cache_folder() / f"kernels-{os.getuid()}" / f"{name}-{_fingerprint(source, compiler)}.so"
    try:
        ensure_private_folder(built.parent)
        if not _is_intact(built):
            _compile(compiler, source, built)
        return ctypes.CDLL(str(built))
    except (OSError, subprocess.CalledProcessError) as error:
        _log.warning("%s could not be compiled, PyTorch's slower operators are used instead: %s", source.name, error)
        return None


def _compile(compiler: str, source: Path, built: Path) -> None:
    """Compile in a temporary folder and move the result, so that no process loads an incomplete file."""
    with tempfile.TemporaryDirectory(dir=built.parent) as folder:
        output = Path(folder) / built.name
        command = [compiler, *FLAGS, "-o", str(output), str(source), "-lm"]
        if subprocess.run([*command, OPENMP], check=False, capture_output=True).returncode:
            subprocess.run(command, check=True, capture_output=True)
        digest = hashlib.sha256(output.read_bytes()).hexdigest()
        os.replace(output, built)
    write_atomically(_digest_file(built), lambda file: file.write(digest.encode()))


def _is_intact(built: Path) -> bool:
    """Return whether a library is there with the content that was compiled."""
    try:
        digest = _digest_file(built).read_text(encoding="utf-8")
        return not built.is_symlink() and hashlib.sha256(built.read_bytes()).hexdigest() == digest
    except (FileNotFoundError, UnicodeDecodeError):
        return False


def _digest_file(built: Path) -> Path:
    return built.with_suffix(".sha256")


def _fingerprint(source: Path, compiler: str) -> str:
    """Return a hash of everything that the library depends on; machines of several kinds can share a home folder."""
    version = subprocess.run([compiler, "--version"], capture_output=True, check=False).stdout
    headers = b"".join(header.read_bytes() for header in sorted(source.parent.glob("*.h")))
    flags = " ".join([*FLAGS, OPENMP]).encode()
    parts = (source.read_bytes(), headers, flags, version, _processor().encode())
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


def _processor() -> str:
    """Return the kind of the processor and its instruction sets."""
    return f"{platform.system()} {platform.machine()} {platform.processor()} {get_processor_flags()}"
