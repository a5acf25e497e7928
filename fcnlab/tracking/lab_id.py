"""The id of a lab, which distinguishes the runs of several labs in one MLflow store.

It is in `.fcnlab/id` of the lab. A lab that was copied or moved with this file has the same id, and continues the runs
of its trials.
"""

from __future__ import annotations

import re
import uuid
from pathlib import Path

from fcnlab.atomic_file import read_shared, write_atomically
from fcnlab.file_lock import FileLock

TAG = "fcnlab.lab"
"""Tag of a run with the id of the lab that publishes to it. Runs of earlier versions of fcnlab have none."""

LOCK_TIMEOUT = 10.0
"""Seconds to wait for another process that creates the id."""

_ID = re.compile(r"[0-9a-f]{12}")


def read_lab_id(state: Path) -> str | None:
    """Return the id of a lab.

    Args:
        state: folder `.fcnlab` of the lab.

    Returns:
        12 hexadecimal digits; None if the lab has no id, or its file is damaged.
    """
    try:
        text = read_shared(state / "id").decode(errors="replace").strip()
    except FileNotFoundError:
        return None
    return text if _ID.fullmatch(text) else None


def ensure_lab_id(state: Path) -> str:
    """Return the id of a lab, and create it if the lab has none.

    Args:
        state: folder `.fcnlab` of the lab; it is created if it does not exist.

    Raises:
        OSError: the id cannot be written.
    """
    existing = read_lab_id(state)
    if existing is not None:
        return existing
    state.mkdir(parents=True, exist_ok=True)
    with FileLock(state / "id.lock", timeout=LOCK_TIMEOUT):
        lab_id = read_lab_id(state) or uuid.uuid4().hex[:12]
        write_atomically(state / "id", lambda file: file.write(f"{lab_id}\n".encode()))
    return lab_id
