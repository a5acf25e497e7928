"""The GPU tests of the test suite."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.gpu.results import SectionFailed
from benchmarks.gpu.sections.settings import AcceptSettings
from benchmarks.processes import REPOSITORY

MARK = "mark.gpu"
WORKERS = 4
"""Processes of pytest-xdist, where it is installed."""
LIMIT = 140
"""Seconds that the tests may take."""


def gpu_tests(settings: AcceptSettings) -> dict[str, Any]:
    """Run `pytest -m gpu` on the test files that have such tests; others may need packages that are missing here.

    Args:
        settings: settings of the run.
    """
    found = (file for file in sorted((REPOSITORY / "tests").rglob("test_*.py")) if _marked(file))
    files = [str(file.relative_to(REPOSITORY)) for file in found]
    assert files, f"no test file has {MARK}"
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "-vv", "-rfEs", "--durations=15", "-p", "no:cacheprovider"]
    # Other plugins may warn, as pytest-benchmark does beside pytest-xdist, and warnings are errors here.
    command += ["-p", "no:benchmark"]
    if find_spec("xdist"):
        command += ["-p", "xdist", "-n", str(WORKERS), "--dist", "load", "--maxschedchunk", "1"]
        files.sort(key=lambda file: not file.startswith("tests/kernels"))  # the longest tests first
    # The suite hides GPUs from tests unless they are named.
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "0")
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": visible, "OMP_NUM_THREADS": "2"}
    environment["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    # A file, not a pipe: after a timeout it lists the tests that had ended, and workers of pytest cannot keep it open.
    log = settings.log("pytest")
    with log.open("w") as output:
        try:
            done = subprocess.run(
                [*command, *files],
                stdout=output,
                stderr=subprocess.STDOUT,
                timeout=LIMIT,
                cwd=REPOSITORY,
                env=environment,
            )
        except subprocess.TimeoutExpired:
            ended = log.read_text(encoding="utf-8", errors="replace")
            raise SectionFailed(f"not finished after {LIMIT} s", {"files": files, "output": ended[-8000:]}) from None
    text = log.read_text(encoding="utf-8", errors="replace")
    print(text, flush=True)
    counts = {word: int(number) for number, word in re.findall(r"(\d+) (passed|failed|skipped|error)", _last(text))}
    result = {"exit_code": done.returncode, "counts": counts, "files": files, "output": text[-8000:]}
    if done.returncode != 0 or (settings.cuda and not counts.get("passed")):
        raise SectionFailed(f"exit code {done.returncode}: {counts}", result)
    ended = ", ".join(f"{count} {word}" for word, count in counts.items())
    return result | {"detail": f"{ended} in {len(files)} files"}


def _last(text: str) -> str:
    return (text.strip().splitlines() or [""])[-1]


def _marked(file: Path) -> bool:
    return MARK in file.read_text(encoding="utf-8")
