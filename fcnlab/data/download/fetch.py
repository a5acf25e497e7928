"""Download of a dataset: download, verify and unpack its archives, count the files, and rename the folder."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Protocol

from fcnlab.data.download.archive import unpack
from fcnlab.data.download.client import Unreachable, download, part_path
from fcnlab.data.download.sources import Archive, Source
from fcnlab.data.json_cache import read_json
from fcnlab.errors import DataError
from fcnlab.file_lock import FileLock, Timeout
from fcnlab.paths import exists, is_file
from fcnlab.storage_errors import describe_reason

ARCHIVES = "archives"
"""Folder below the data root for archives, also for those that are downloaded by hand."""

RECORD = "fetched.json"
"""File in the folder of a dataset with the addresses and checksums of its archives, and the date."""


class DownloadProgress(Protocol):
    """Output of a download."""

    def log(self, line: str) -> None:
        """Print a line.

        Args:
            line: the text.
        """

    def update(self, label: str, done: int, total: int | None) -> None:
        """Show progress.

        Args:
            label: name of the step.
            done: finished bytes.
            total: total number of bytes, if it is known.
        """


def origin_path(target: Path) -> Path:
    """Return the file that stores the address of a download; files without it were not downloaded.

    Args:
        target: the complete file.
    """
    return target.with_name(f"{target.name}.origin.json")


@dataclass(frozen=True)
class _Verified:
    """A verified archive on the disk."""

    archive: Archive
    path: Path
    url: str | None
    sha256: str


def fetch_dataset(
    name: str, source: Source, data_root: Path, progress: DownloadProgress, *, folder: str | None = None,
    keep_archives: bool = False,
) -> Path:  # fmt: skip
    """Download a dataset, unless it is already complete. An interrupted download is resumed by the next call.

    Args:
        name: name of the dataset.
        source: its archives.
        data_root: folder for datasets.
        progress: output.
        folder: folder of the dataset below the data root, if it differs from the folder of the source.
        keep_archives: keep the downloaded archives.

    Returns:
        The folder of the dataset.

    Raises:
        DataError: a file cannot be downloaded, has a wrong checksum or cannot be unpacked, or the folder exists and is
            not this dataset. Partial downloads are kept; the folder of the dataset is never incomplete.
    """
    target = data_root / (folder or source.folder)
    if exists(target):
        missing = _describe_missing(target, source)
        if missing:
            raise DataError(
                f"{target}: already exists but differs from {name} ({missing}); nothing was downloaded. Move the "
                "folder away, or use it as it is"
            )
        progress.log(f"{target}: is already complete")
        return target
    store = data_root / ARCHIVES
    with _lock(store, name):
        verified = _get_all(name, source, store, progress)
        _install(name, source, verified, target, progress)
        _remove_archives(verified, keep_archives, progress)
    return target


@contextmanager
def _lock(store: Path, name: str) -> Iterator[None]:
    """Hold the lock that allows one download of a dataset at a time."""
    try:
        store.mkdir(parents=True, exist_ok=True)
        with FileLock(store / f".{name.replace('/', '_')}.lock", timeout=0):
            yield
    except Timeout:
        raise DataError(f"{store}: another download of {name} is running") from None
    except OSError as error:
        raise DataError(f"{error.filename or store}: cannot be written: {describe_reason(error)}") from None


def _get_all(name: str, source: Source, store: Path, progress: DownloadProgress) -> list[_Verified]:
    """Return all archives.

    Raises:
        DataError: archives cannot be downloaded; one message lists all of them.
    """
    verified, missing, reasons = [], [], []
    for archive in source.archives:
        try:
            verified.append(_get(archive, source, store, progress))
        except Unreachable as error:
            missing.append(archive)
            reasons.append(str(error))
    if missing:
        files = "; ".join(_describe(archive, source) for archive in missing)
        raise DataError(
            f"{name}: {'; '.join(reasons)}. Download by hand: {files}. Put the files into {store}/ and run the command "
            "again: it verifies and unpacks them"
        )
    return verified


def _describe(archive: Archive, source: Source) -> str:
    size = f"{archive.bytes:,} bytes, " if archive.bytes is not None else ""
    url = archive.urls[0] if archive.urls else source.page
    return f"{archive.file} ({size}{archive.checksum or 'no published checksum'}) from {url}"


def _get(archive: Archive, source: Source, store: Path, progress: DownloadProgress) -> _Verified:
    target = store / archive.file
    if is_file(target):
        progress.log(f"{archive.file}: found in {store}")
        return _verify(archive, target, target, read_json(origin_path(target)).get("url"), progress)
    if not archive.urls:
        raise Unreachable(f"{archive.file} needs a login ({source.terms})")
    part = part_path(target)
    _check_free_space(store, (archive.bytes or 0) - (part.stat().st_size if is_file(part) else 0))
    url = download(
        archive.urls,
        target,
        size=archive.bytes,
        limit=archive.bytes or source.expanded,
        has_checksum=archive.checksum is not None,
        progress=partial(progress.update, archive.file),
    )
    origin_path(target).write_text(json.dumps({"url": url}), encoding="utf-8")
    verified = _verify(archive, part, target, url, progress)
    os.replace(part, target)
    return verified


def _verify(archive: Archive, file: Path, target: Path, url: str | None, progress: DownloadProgress) -> _Verified:
    """Compare a file with its checksum. A wrong file is removed only if it was downloaded."""
    algorithm, _, expected = (archive.checksum or "sha256:").partition(":")
    digests = {"sha256": hashlib.sha256(), algorithm: hashlib.new(algorithm, usedforsecurity=False)}
    done, total = 0, file.stat().st_size
    with file.open("rb") as opened:
        while chunk := opened.read(2**20):
            for digest in digests.values():
                digest.update(chunk)
            done += len(chunk)
            progress.update(f"verifying {archive.file}", done, total)
    found, sha256 = digests[algorithm].hexdigest(), digests["sha256"].hexdigest()
    if archive.checksum is None:
        progress.log(f"{archive.file}: no published checksum; recorded: sha256 {sha256}")
    elif found != expected:
        downloaded = file != target or is_file(origin_path(target))
        if downloaded:
            file.unlink()
            origin_path(target).unlink(missing_ok=True)
        action = "it was removed; run the command again" if downloaded else "replace it"
        raise DataError(
            f"{file}: its {algorithm} is {found} instead of {expected} ({total:,} bytes): the file is damaged, or has "
            f"changed at its source; {action}"
        )
    return _Verified(archive, target, url, sha256)


def _install(name: str, source: Source, verified: list[_Verified], target: Path, progress: DownloadProgress) -> None:
    """Unpack into a temporary folder, count the files, and rename the folder."""
    temporary = target.with_name(f".{target.name}.unpacking")
    if exists(temporary):
        shutil.rmtree(temporary)  # of an interrupted download; this process holds the lock
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        left = source.expanded
        for one in verified:
            update = partial(progress.update, f"unpacking {one.archive.file}", total=None)
            left -= unpack(one.path, one.archive.take, temporary / one.archive.into, limit=left, progress=update)
        missing = _describe_missing(temporary, source)
        if missing:
            raise DataError(f"{name}: the archives do not contain the complete dataset: {missing}")
        record = json.dumps(_create_record(name, source, verified), indent=2)
        (temporary / RECORD).write_text(record + "\n", encoding="utf-8")
        temporary.rename(target)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    progress.log(f"{target}: unpacked, all files are present")


def _describe_missing(folder: Path, source: Source) -> str:
    """Return a description of the missing files; empty if the dataset is complete."""
    found = {pattern: sum(1 for _ in folder.glob(pattern)) for pattern in source.counts}
    wrong = (f"{found[p]} instead of {count} {p}" for p, count in source.counts.items() if found[p] != count)
    return ", ".join(wrong)


def _create_record(name: str, source: Source, verified: list[_Verified]) -> dict[str, object]:
    archives = [
        {
            "file": one.archive.file,
            "url": one.url,
            "sha256": one.sha256,
            "verified": one.archive.checksum or "no published checksum; recorded on first fetch, files counted",
        }
        for one in verified
    ]
    return {
        "dataset": name,
        "fetched": datetime.now(UTC).isoformat(timespec="seconds"),
        "archives": archives,
        "files": dict(source.counts),
        "terms": source.terms,
        "page": source.page,
    }


def _remove_archives(verified: list[_Verified], keep: bool, progress: DownloadProgress) -> None:
    """Remove downloaded archives; archives without a recorded address are kept."""
    for one in verified:
        if is_file(origin_path(one.path)) and not keep:
            one.path.unlink()
            origin_path(one.path).unlink()
        else:
            progress.log(f"{one.path}: kept")


def _check_free_space(store: Path, needed: int) -> None:
    free = shutil.disk_usage(store).free
    if needed > free:
        raise DataError(f"{store}: the download needs {needed:,} bytes, but only {free:,} bytes are free")
