"""Files as a power cut leaves them: truncated, or with zeros in place of the last block that was written."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

BLOCK = 4096

KINDS = {
    "progress.jsonl": "runs/*/progress.jsonl",
    "attempts.jsonl": "runs/*/attempts.jsonl",
    "checkpoint.pt": "runs/*/checkpoint.pt",
    "record.json": "runs/*/record.json",
    "counts.npz": "runs/*/counts.npz",
    "trial.json": "runs/*/trial.json",
    "weights": "runs/*/*.safetensors",
    "lease": "runs/*/lease.*",
    "heartbeat of a driver": ".fcnlab/drivers/*",
    "state of the grid": ".fcnlab/grids/**/*",
}
"""Kinds of files, and their paths in a lab."""

CACHES = {"decoded cache": "decoded/*/*", "compiled kernel": "kernels-*/*", "JSON in the cache": "*/*.json"}
"""Kinds of files, and their paths in the cache folder."""


def find_recent(lab: Path, cache: Path, since: float) -> Iterator[tuple[str, Path]]:
    """Yield the file of each kind that was written last, if that was recently.

    Args:
        lab: folder of the lab.
        cache: folder of caches.
        since: earliest time of the last write, in seconds since the epoch.
    """
    for folder, kinds in ((lab, KINDS), (cache, CACHES)):
        for kind, pattern in kinds.items():
            found = [path for path in folder.glob(pattern) if path.is_file() and path.stat().st_size]
            last = max(found, key=lambda path: path.stat().st_mtime_ns, default=None)
            if last is not None and last.stat().st_mtime >= since:
                yield kind, last


def tear(path: Path, chance: random.Random) -> str:
    """Damage a file and return a description of the damage.

    Args:
        path: path of the file, which is not empty.
        chance: chooses the damage.
    """
    size = path.stat().st_size
    with path.open("r+b") as file:
        if chance.random() < 0.5:
            length = chance.randrange(size)
            file.truncate(length)
            return f"{path.name} truncated to {length} of {size} bytes"
        start = max(0, size - BLOCK)
        file.seek(start)
        file.write(bytes(size - start))
        os.fsync(file.fileno())
    return f"the last {size - start} of {size} bytes of {path.name} zeroed"
