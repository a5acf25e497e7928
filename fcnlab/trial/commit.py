"""The git commit of a folder."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent


def find_commit(folder: Path = PACKAGE) -> str | None:
    """Return the git commit of a folder.

    Args:
        folder: the folder; by default that of fcnlab.

    Returns:
        The commit, followed by `+` if files of the folder are modified; None outside a checkout, and if git has no file
        of the folder: the checkout around it is of another project then.
    """
    if not _git(folder, "ls-files", "."):
        return None
    head = _git(folder, "rev-parse", "--short=12", "HEAD")
    return f"{head}+" if head and _git(folder, "status", "--porcelain", "--", ".") else head


def _git(folder: Path, *arguments: str) -> str | None:
    """Return the output of git; None if git is missing, fails or takes too long."""
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
