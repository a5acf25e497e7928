"""Content digests of files.

Hashing a dataset takes seconds per gigabyte, so the digest of each file is kept in the user's cache and reused while
the file's size, modification time and inode are unchanged; the inode identifies the target of a link.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from fcnlab.data.json_cache import read_json, write_json
from fcnlab.errors import DataError
from fcnlab.settings import cache_folder


def hash_file(path: Path) -> str:
    """Return the sha256 of a file.

    Args:
        path: the file.

    Raises:
        DataError: the file is missing or cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None


def hash_files(named: Iterable[tuple[str, Path]]) -> str:
    """Return a digest of the names and contents of files, which does not depend on their location.

    Args:
        named: names and paths of the files, in order.

    Raises:
        DataError: a file is missing or cannot be read.
    """
    files = list(named)
    folders = {parent: parent.resolve() for parent in {path.parent for _, path in files}}
    store = cache_folder() / "digests" / f"{_hash_text(str(sorted(folders.values())))}.json"
    known = read_json(store)
    current = {}
    total = hashlib.sha256()
    for name, path in files:
        stamp = _stamp(path)
        location = f"{folders[path.parent]}/{path.name}"
        current[location] = entry = known.get(location, [])
        if not (isinstance(entry, list) and len(entry) == 2 and entry[0] == stamp):
            current[location] = entry = [stamp, hash_file(path)]
        total.update(f"{name}\0{entry[1]}\n".encode())
    if current != known:
        write_json(store, known | current)
    return f"sha256:{total.hexdigest()}"


def _stamp(path: Path) -> str:
    try:
        status = path.stat()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    return f"{status.st_size}-{status.st_mtime_ns}-{status.st_ino}"


def _hash_text(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:24]
