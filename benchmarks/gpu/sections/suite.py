"""The GPU tests of the test suite."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from results import SectionFailed
from sections.settings import ROOT, Settings

MARK = "mark.gpu"


def gpu_tests(settings: Settings) -> dict[str, Any]:
    """Run `pytest -m gpu` over the test files that have such tests; others may need packages that are missing here."""
    files = [str(file.relative_to(ROOT)) for file in sorted((ROOT / "tests").rglob("test_*.py")) if _marked(file)]
    assert files, f"no test file has {MARK}"
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "-rfEs", "-p", "no:cacheprovider", *files]
    # The suite hides GPUs from tests unless they are named.
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": os.environ.get("CUDA_VISIBLE_DEVICES", "0")}
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, cwd=ROOT, env=environment)
    print(done.stdout, done.stderr, flush=True)
    counts = {
        word: int(number) for number, word in re.findall(r"(\d+) (passed|failed|skipped|error)", _last(done.stdout))
    }
    result = {"exit_code": done.returncode, "counts": counts, "files": files, "output": done.stdout[-8000:]}
    if done.returncode != 0 or (settings.cuda and not counts.get("passed")):
        raise SectionFailed(f"exit code {done.returncode}: {counts}", result)
    return result | {"detail": f"{counts} in {len(files)} files"}


def _last(text: str) -> str:
    return (text.strip().splitlines() or [""])[-1]


def _marked(file: Path) -> bool:
    return MARK in file.read_text(encoding="utf-8")
