"""Content digests of files.

Hashing a dataset takes seconds per gigabyte, so the digest of each file is kept in the user's cache, in one store per
dataset, and reused while the file's size, inode and times are unchanged; the inode identifies the target of a link, and
the time of the last change of the inode reveals files whose modification time was set to the old one. A file that has
just been changed could change again within the resolution of these times, so its digest is not kept.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fcnlab.data.json_cache import cache_file, read_json, write_json
from fcnlab.errors import DataError
from fcnlab.paths import check_regular_file, resolve_path

KEPT_AFTER = 2.0
"""Seconds after its last change at which the digest of a file is kept; a multiple of the resolution of file times."""


def hash_file(path: Path) -> str:
    """Return the sha256 of a file.

    Args:
        path: the file.

    Raises:
        DataError: the file is missing or cannot be read.
    """
    try:
        check_regular_file(path)
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None


def hash_files(named: Iterable[tuple[str, Path]], dataset: Path) -> str:
    """Return a digest of the names and contents of files, which does not depend on their location.

    Args:
        named: names and paths of the files, in order.
        dataset: folder of the dataset.

    Raises:
        DataError: a file is missing or cannot be read.
    """
    files = list(named)
    total = hashlib.sha256()
    for (name, _), digest in zip(files, hash_each([path for _, path in files], dataset), strict=True):
        total.update(f"{name}\0{digest}\n".encode())
    return f"sha256:{total.hexdigest()}"


def hash_each(files: Sequence[Path], dataset: Path) -> list[str]:
    """Return the sha256 of the content of each file.

    Args:
        files: the files.
        dataset: folder of the dataset, in whose store digests are kept.

    Raises:
        DataError: a file is missing or cannot be read.
    """
    store = cache_file("digests", str(resolve_path(dataset)))
    known = read_json(store)
    folders: dict[str, tuple[str, dict[str, Any]]] = {}
    new: dict[str, dict[str, list[str]]] = {}
    digests = []
    for path in files:
        folder, name = os.path.split(path)
        if folder not in folders:
            real = str(resolve_path(folder))
            folders[folder] = (real, _read_entries(known, real))
        real, entries = folders[folder]
        stamp, changed = _stamp(path)
        entry = entries.get(name)
        if not (isinstance(entry, list) and len(entry) == 2 and entry[0] == stamp):
            entry = [stamp, hash_file(path)]
            if abs(time.time() - changed) > KEPT_AFTER:  # the clock may have been set back
                new.setdefault(real, {})[name] = entry
        digests.append(entry[1])
    if new:
        known = read_json(store)  # another process may have added digests
        write_json(store, known | {folder: _read_entries(known, folder) | entries for folder, entries in new.items()})
    return digests


def _read_entries(known: Mapping[str, Any], folder: str) -> dict[str, Any]:
    """Return the stamps and digests of the files in a folder by name."""
    entries = known.get(folder)
    return entries if isinstance(entries, dict) else {}


def _stamp(path: Path) -> tuple[str, float]:
    """Return the identity of a file version, and the time of its last change in seconds since 1970."""
    try:
        status = path.stat()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    stamp = f"{status.st_size}-{status.st_mtime_ns}-{status.st_ctime_ns}-{status.st_ino}"
    return stamp, status.st_ctime
