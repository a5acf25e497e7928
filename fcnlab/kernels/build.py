"""C source of this package, compiled once by the system's compiler and kept in the user's cache."""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

from fcnlab.processor import get_processor_flags
from fcnlab.settings import cache_folder

FLAGS = ("-O3", "-march=native", "-std=gnu11", "-fno-math-errno", "-fno-trapping-math", "-shared", "-fPIC")
"""No -ffast-math: what is no number must stay so, or a divergence would not show."""

KERNELS = tuple(sorted(source.stem for source in Path(__file__).parent.glob("*.c")))
"""What there is to be compiled."""

_log = logging.getLogger(__name__)


@cache
def load_library(name: str) -> ctypes.CDLL | None:
    """The library of `<name>.c` beside this file; None where there is no compiler or it does not take the source.

    It is compiled when it is first asked for, which takes a second or less, and found again by all processes of the
    user on machines of this kind.
    """
    compiler = shutil.which("cc")
    if compiler is None:
        _log.info("no C compiler: fcnlab's plain ways are taken")
        return None
    source = Path(__file__).with_name(f"{name}.c")
    built = cache_folder() / f"kernels-{os.getuid()}" / f"{name}-{_fingerprint(source, compiler)}.so"
    try:
        _own(built.parent)
        if not built.exists():
            _compile(compiler, source, built)
        return ctypes.CDLL(str(built))
    except (OSError, subprocess.CalledProcessError) as error:
        _log.warning("%s could not be compiled, a plain way is taken: %s", source.name, error)
        return None


def _own(folder: Path) -> None:
    """Make the folder, or see that it is the user's alone: a cache may be shared, and what is loaded from it is run.

    Raises:
        OSError: it is another user's, or others may write to it.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.stat()
    if found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise PermissionError(f"{folder} can be written by others")


def _compile(compiler: str, source: Path, built: Path) -> None:
    """Compile beside the place and move there, so that another process never loads a half."""
    with tempfile.TemporaryDirectory(dir=built.parent) as folder:
        made = Path(folder) / built.name
        subprocess.run([compiler, *FLAGS, "-o", made, source, "-lm"], check=True, capture_output=True)
        os.replace(made, built)


def _fingerprint(source: Path, compiler: str) -> str:
    """What the library depends on: a home may be shared by machines of several kinds."""
    version = subprocess.run([compiler, "--version"], capture_output=True, check=False).stdout
    parts = (source.read_bytes(), " ".join(FLAGS).encode(), version, _processor().encode())
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


def _processor() -> str:
    """The kind of processor, with what instructions it has."""
    return f"{platform.system()} {platform.machine()} {platform.processor()} {get_processor_flags()}"
