"""Small JSON files in the user's cache folder, which can be lost at any time."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fcnlab.atomic_file import read_shared, write_atomically
from fcnlab.settings import cache_folder


def cache_file(kind: str, identity: Any) -> Path:
    """Return the file of a cached value.

    Args:
        kind: folder of values of one kind below the cache folder.
        identity: everything that the value depends on, as JSON values.
    """
    text = json.dumps(identity, sort_keys=True, default=str)
    return cache_folder() / kind / f"{hashlib.sha256(text.encode()).hexdigest()[:24]}.json"


def read_json(file: Path) -> dict[str, Any]:
    """Return the content of a cached file; empty if it is missing or truncated.

    Args:
        file: a JSON file that contains an object.
    """
    try:
        known = json.loads(read_shared(file))
    except (OSError, ValueError):  # its content is computed again
        return {}
    return known if isinstance(known, dict) else {}


def write_json(file: Path, content: Mapping[str, Any]) -> None:
    """Write a cached file atomically; if the folder is not writable, its content is computed again next time.

    Args:
        file: the file; its folder is created.
        content: values of JSON.
    """
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, lambda opened: opened.write(json.dumps(content).encode()))
