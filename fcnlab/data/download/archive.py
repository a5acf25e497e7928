"""Safe unpacking of untrusted archives.

All names are checked before the first byte is written, and only folders and regular files are created, so an archive
cannot write through a link. This is stricter than the filter "data" of tarfile, and also applies to zip files.
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
from pathlib import Path
from typing import IO

from fcnlab.errors import DataError

MEMBERS = 1_000_000
"""Maximum number of members of an archive; the largest known dataset has about 60,000."""

CHUNK = 2**20

_BROKEN = (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError, RuntimeError)


@dataclass(frozen=True)
class _Member:
    """A regular file of an archive."""

    name: str
    size: int
    open: Callable[[], IO[bytes]]


def unpack(
    archive: Path, take: str, folder: Path, *, limit: int, advance: Callable[[int], object] = lambda _: None
) -> int:
    """Unpack one folder of a tar file (also compressed) or zip file, and return the number of bytes.

    Args:
        archive: the archive.
        take: folder in the archive that is unpacked.
        folder: target folder.
        limit: maximum size of all files in bytes.
        advance: called with the number of bytes of each write.

    Raises:
        DataError: the file is not an archive, is damaged, unpacks to more than `limit` bytes, or contains a name or
            link that leads outside. `folder` is then missing or incomplete.
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
            done += _write(archive, member, folder / member.name.removeprefix(prefix), limit - done, advance)
    return done


def _write(archive: Path, member: _Member, path: Path, left: int, advance: Callable[[int], object]) -> int:
    """Write one new file of at most `left` bytes; the size in the header is not trusted."""
    path.parent.mkdir(parents=True, exist_ok=True)
    done = 0
    try:
        with member.open() as source, path.open("xb") as target:
            while chunk := source.read(CHUNK):
                done += len(chunk)
                if done > left:
                    raise DataError(f"{archive}: {member.name} unpacks to more bytes than its header states")
                target.write(chunk)
                advance(len(chunk))
    except FileExistsError:
        raise DataError(f"{archive}: {member.name} occurs twice") from None
    return done


@contextmanager
def _members(archive: Path) -> Iterator[list[_Member]]:
    """Yield the files of an archive after checking all names."""
    try:
        if _is_zip(archive):
            with zipfile.ZipFile(archive) as zipped:
                yield _list_zip(archive, zipped)
        else:
            with tarfile.open(archive, "r:*") as tar:
                yield _list_tar(archive, tar)
    except _BROKEN as error:
        raise DataError(f"{archive}: cannot be unpacked: {error}") from None


def _is_zip(archive: Path) -> bool:
    """Return whether the first bytes are those of a zip file; zipfile.is_zipfile reads only the end of the file."""
    with archive.open("rb") as file:
        return file.read(2) == b"PK"


def _list_zip(archive: Path, zipped: zipfile.ZipFile) -> list[_Member]:
    infos = zipped.infolist()
    _check_count(archive, len(infos))
    members = []
    for info in infos:
        name = _check_name(archive, info.orig_filename)
        kind = stat.S_IFMT(info.external_attr >> 16)
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            what = "a link" if kind == stat.S_IFLNK else "a device"
            raise DataError(f"{archive}: '{info.filename}' is {what}; it is not unpacked")
        if not info.orig_filename.endswith("/"):
            members.append(_Member(name, info.file_size, lambda info=info: zipped.open(info)))  # type: ignore[misc]
    return members


def _list_tar(archive: Path, tar: tarfile.TarFile) -> list[_Member]:
    files: dict[str, tarfile.TarInfo] = {}
    links: dict[str, tarfile.TarInfo] = {}
    for count, info in enumerate(tar, start=1):
        _check_count(archive, count)
        name = _check_name(archive, info.name)
        if info.issym() or info.islnk():
            links[name] = info
        elif info.isreg():
            if name in files:
                raise DataError(f"{archive}: {name} occurs twice")
            files[name] = info
        elif not info.isdir():
            raise DataError(f"{archive}: '{info.name}' is a device; it is not unpacked")
    for name, info in links.items():
        files[name] = _resolve_link(archive, name, info, files)
    return [_Member(name, info.size, lambda info=info: _open_member(tar, info)) for name, info in files.items()]  # type: ignore[misc]


def _open_member(tar: tarfile.TarFile, info: tarfile.TarInfo) -> IO[bytes]:
    file = tar.extractfile(info)
    assert file is not None, "a regular file"
    return file


def _resolve_link(
    archive: Path, name: str, info: tarfile.TarInfo, files: dict[str, tarfile.TarInfo]
) -> tarfile.TarInfo:
    """Return the file to which a link points; its content is copied instead of creating a link."""
    target = posixpath.join(posixpath.dirname(name), info.linkname) if info.issym() else info.linkname
    inside = not target.startswith("/") and not posixpath.normpath(target).startswith("..")
    found = files.get(posixpath.normpath(target)) if inside else None
    if found is None or not found.isreg():
        where = "to no file of the archive" if inside else "out of the archive"
        raise DataError(f"{archive}: '{info.name}' is a link {where} ('{info.linkname}'); it is not unpacked")
    return found


def _check_name(archive: Path, name: str) -> str:
    """Return the normalized name of a member.

    Raises:
        DataError: the name is absolute, leads upwards, or has a drive or backslashes.
    """
    invalid = not name or name.startswith("/") or re.match(r"[A-Za-z]:", name) or "\\" in name or "\0" in name
    if invalid or ".." in name.split("/"):
        raise DataError(f"{archive}: the name {name!r} leads outside; the archive is not unpacked")
    return posixpath.normpath(name)


def _check_count(archive: Path, count: int) -> None:
    if count > MEMBERS:
        raise DataError(f"{archive}: has more than {MEMBERS:,} members; it is not unpacked")
