"""Safe unpacking of untrusted archives.

All names are checked before the first byte is written, and only regular files are unpacked, so an archive cannot write
through a link. This is stricter than the filter "data" of tarfile, and also applies to zip files.
"""

from __future__ import annotations

import lzma
import posixpath
import re
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO

from fcnlab.errors import DataError

CHUNK = 2**20

_BROKEN = (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError, RuntimeError)


@dataclass(frozen=True)
class _Member:
    """A regular file of an archive."""

    name: str
    size: int
    open: Callable[[], IO[bytes] | None]


def unpack(
    archive: Path, take: str, folder: Path, *, limit: int, progress: Callable[[int], object] = lambda _: None
) -> int:
    """Unpack the regular files of one folder of a tar file (also compressed) or zip file.

    Links and devices are left out.

    Args:
        archive: the archive.
        take: folder in the archive that is unpacked.
        folder: target folder.
        limit: maximum size of all files in bytes.
        progress: called with the number of unpacked bytes after each write.

    Returns:
        The number of unpacked bytes.

    Raises:
        DataError: the file is not an archive, is damaged, unpacks to more than `limit` bytes, or contains a name that
            leads outside. `folder` is then missing or incomplete.
    """
    with _members(archive) as members:
        if sum(member.size for member in members) > limit:
            raise DataError(f"{archive}: would unpack to more than {limit:,} bytes, the maximum")
        prefix = f"{take.strip('/')}/" if take else ""
        chosen = [member for member in members if member.name.startswith(prefix)]
        if not chosen:
            raise DataError(f"{archive}: contains no files{f' in {prefix}' if prefix else ''}")
        done = 0
        for member in chosen:
            path = folder / member.name.removeprefix(prefix)
            path.parent.mkdir(parents=True, exist_ok=True)
            source = member.open()
            assert source is not None, "a regular file"
            try:
                with source, path.open("xb") as target:
                    while chunk := source.read(CHUNK):  # no more bytes than the header states
                        target.write(chunk)
                        done += len(chunk)
                        progress(done)
            except FileExistsError:
                raise DataError(f"{archive}: {member.name} occurs twice") from None
    return done


@contextmanager
def _members(archive: Path) -> Iterator[list[_Member]]:
    """Yield the regular files of an archive after checking their names."""
    try:
        if _is_zip(archive):
            with zipfile.ZipFile(archive) as zipped:
                yield [
                    _Member(_check_name(archive, info.orig_filename), info.file_size, partial(zipped.open, info))
                    for info in zipped.infolist()
                    if stat.S_IFMT(info.external_attr >> 16) in (0, stat.S_IFREG) and not info.filename.endswith("/")
                ]
        else:
            with tarfile.open(archive, "r:*") as tar:
                yield [
                    _Member(_check_name(archive, info.name), info.size, partial(tar.extractfile, info))
                    for info in tar
                    if info.isreg()
                ]
    except _BROKEN as error:
        raise DataError(f"{archive}: cannot be unpacked: {error}") from None


def _is_zip(archive: Path) -> bool:
    """Return whether the first bytes are those of a zip file; zipfile.is_zipfile reads only the end of the file."""
    with archive.open("rb") as file:
        return file.read(2) == b"PK"


def _check_name(archive: Path, name: str) -> str:
    """Return the normalized name of a member.

    Raises:
        DataError: the name is absolute, leads upwards, or has a drive or backslashes.
    """
    invalid = not name or name.startswith("/") or re.match(r"[A-Za-z]:", name) or "\\" in name or "\0" in name
    if invalid or ".." in name.split("/"):
        raise DataError(f"{archive}: the name {name!r} leads outside; the archive is not unpacked")
    return posixpath.normpath(name)
