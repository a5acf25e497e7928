"""Content fingerprints of files: what a figure was measured on, whatever the folder is called.

Reading a dataset to hash it costs seconds a gigabyte, so the digest of each file is kept in the user's cache and
used again while the file's size, modification time (in nanoseconds) and inode are the same; the inode tells where a
link points to.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
from collections.abc import Iterable
from pathlib import Path

from fcnlab.errors import DataError
from fcnlab.settings import cache_folder


def hash_file(path: Path) -> str:
    """The sha256 of one file.

    Raises:
        DataError: the file is missing or cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None


def hash_files(named: Iterable[tuple[str, Path]]) -> str:
    """A digest of the names and contents of files, independent of where they lie.

    Raises:
        DataError: a file is missing or cannot be read.
    """
    files = list(named)
    folders = {parent: parent.resolve() for parent in {path.parent for _, path in files}}
    store = cache_folder() / "digests" / f"{_text_digest(str(sorted(folders.values())))}.json"
    known = _read(store)
    fresh = {}
    total = hashlib.sha256()
    for name, path in files:
        stamp = _stamp(path)
        place = f"{folders[path.parent]}/{path.name}"
        fresh[place] = entry = known.get(place, [])
        if not (isinstance(entry, list) and len(entry) == 2 and entry[0] == stamp):
            fresh[place] = entry = [stamp, hash_file(path)]
        total.update(f"{name}\0{entry[1]}\n".encode())
    if fresh != known:
        _write(store, known | fresh)
    return f"sha256:{total.hexdigest()}"


def _stamp(path: Path) -> str:
    try:
        status = path.stat()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    return f"{status.st_size}-{status.st_mtime_ns}-{status.st_ino}"


def _text_digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def _read(store: Path) -> dict[str, list[str]]:
    try:
        known = json.loads(store.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # absent or torn: a cache, made again below
        return {}
    return known if isinstance(known, dict) else {}


def _write(store: Path, digests: dict[str, list[str]]) -> None:
    """Write the cache whole or not at all; a folder that cannot be written only costs time."""
    beside = store.with_name(f"{store.name}.{os.getpid()}-{secrets.token_hex(4)}")
    try:
        store.parent.mkdir(parents=True, exist_ok=True)
        beside.write_text(json.dumps(digests), encoding="utf-8")  # as readable by others as the umask lets it be
        os.replace(beside, store)
    except OSError:
        with contextlib.suppress(OSError):
            beside.unlink()
