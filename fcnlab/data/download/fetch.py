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
from pathlib import Path
from typing import Protocol

from filelock import FileLock, Timeout

from fcnlab.data.download.archive import unpack
from fcnlab.data.download.client import PAUSES, Unreachable, download, origin_of, part_of
from fcnlab.data.download.sources import Archive, Source
from fcnlab.errors import DataError

ARCHIVES = "archives"
"""Folder below the data root for archives, also for those that are downloaded by hand."""

RECORD = "fetched.json"
"""File in the folder of a dataset with the addresses and checksums of its archives, and the date."""


class Watch(Protocol):
    """Output of a download."""

    def say(self, line: str) -> None:
        """Print a line.

        Args:
            line: the text.
        """

    def moved(self, label: str, here: int, whole: int | None) -> None:
        """Show progress.

        Args:
            label: name of the step.
            here: finished bytes.
            whole: total number of bytes, if it is known.
        """


@dataclass(frozen=True)
class _Held:
    """A verified archive on the disk."""

    archive: Archive
    path: Path
    url: str | None
    sha256: str


def fetch(
    name: str, source: Source, data_root: Path, watch: Watch, *, folder: str | None = None, keep_archives: bool = False,
    pauses: tuple[float, ...] = PAUSES,
) -> Path:  # fmt: skip
    """Bring a dataset to `data_root/folder`; returns that folder. What is there and whole already is left as it is.

    Raises:
        DataError: a file cannot be had, is not what it should be, or cannot be unpacked; or something else is in the
            dataset's place. What was downloaded of it stays for the next call, what is unpacked is never in its place.
    """
    place = data_root / (folder or source.folder)
    if place.exists():
        lacking = _lacking(place, source)
        if lacking:
            raise DataError(
                f"{place}: is there already and is not what {name} has ({lacking}); nothing was fetched. Move it away "
                "first, or use it as it is"
            )
        watch.say(f"{place}: is there already, all of it")
        return place
    store = data_root / ARCHIVES
    with _alone(store, name):
        held = _held(name, source, store, watch, pauses)
        _place(name, source, held, place, watch)
        _clear(held, keep_archives, watch)
    return place


@contextmanager
def _alone(store: Path, name: str) -> Iterator[None]:
    """Hold the lock that allows one download of a dataset at a time."""
    try:
        store.mkdir(parents=True, exist_ok=True)
        lock = FileLock(store / f".{name}.lock")
        with lock.acquire(timeout=0):
            yield
    except Timeout:
        raise DataError(f"{store}: another fetch of {name} is at work") from None
    except OSError as error:
        raise DataError(f"{error.filename or store}: cannot be written: {error.strerror}") from None


def _held(name: str, source: Source, store: Path, watch: Watch, pauses: tuple[float, ...]) -> list[_Held]:
    """All archives, verified.

    Raises:
        DataError: some cannot be had; one message says which, from where, and where to put them.
    """
    held, lacking, reasons = [], [], []
    for archive in source.archives:
        try:
            held.append(_get(archive, source, store, watch, pauses))
        except Unreachable as error:
            lacking.append(archive)
            reasons.append(str(error))
    if lacking:
        wanted = "; ".join(_described(archive, source) for archive in lacking)
        raise DataError(
            f"{name}: {'; '.join(reasons)}. Get by hand: {wanted}. Put into {store}/ and run this again: "
            "it is verified and unpacked from there"
        )
    return held


def _described(archive: Archive, source: Source) -> str:
    size = f"{archive.bytes:,} bytes, " if archive.bytes is not None else ""
    where = archive.urls[0] if archive.urls else source.page
    return f"{archive.file} ({size}{archive.checksum or 'no published checksum'}) from {where}"


def _get(archive: Archive, source: Source, store: Path, watch: Watch, pauses: tuple[float, ...]) -> _Held:
    target = store / archive.file
    if target.is_file():
        watch.say(f"{archive.file}: is in {store} already")
        return _verified(archive, target, target, _url_of(target), watch)
    if not archive.urls:
        raise Unreachable(f"{archive.file} needs a login ({source.terms})")
    part = part_of(target)
    _room(store, (archive.bytes or 0) - (part.stat().st_size if part.is_file() else 0))
    url = download(
        archive.urls,
        target,
        size=archive.bytes,
        limit=archive.bytes or source.expanded,
        checked=archive.checksum is not None,
        moved=lambda here, whole: watch.moved(archive.file, here, whole),
        pauses=pauses,
    )
    held = _verified(archive, part, target, url, watch)
    os.replace(part, target)
    return held


def _verified(archive: Archive, file: Path, target: Path, url: str | None, watch: Watch) -> _Held:
    """Compare a file with its checksum. What was downloaded and is wrong is removed; what a person put there is not."""
    algorithm, _, expected = (archive.checksum or "sha256:").partition(":")
    digests = {"sha256": hashlib.sha256(), algorithm: hashlib.new(algorithm, usedforsecurity=False)}
    done, whole = 0, file.stat().st_size
    with file.open("rb") as opened:
        while chunk := opened.read(2**20):
            for digest in digests.values():
                digest.update(chunk)
            done += len(chunk)
            watch.moved(f"verifying {archive.file}", done, whole)
    found = digests[algorithm].hexdigest()
    if archive.checksum is None:
        watch.say(f"{archive.file}: no published checksum; recorded: sha256 {digests['sha256'].hexdigest()}")
    elif found != expected:
        ours = file != target or origin_of(target).is_file()
        if ours:
            file.unlink()
            origin_of(target).unlink(missing_ok=True)
        what = "it is removed; fetch again" if ours else "put the right one there"
        raise DataError(
            f"{file}: its {algorithm} is {found} and not {expected} ({whole:,} bytes): damaged on its way, or changed "
            f"at its source; {what}"
        )
    return _Held(archive, target, url, digests["sha256"].hexdigest())


def _place(name: str, source: Source, held: list[_Held], place: Path, watch: Watch) -> None:
    """Unpack into a temporary folder, count the files, and rename the folder."""
    aside = place.with_name(f".{place.name}.unpacking")
    if aside.exists():
        shutil.rmtree(aside)  # of a fetch that was interrupted; we are alone
    place.parent.mkdir(parents=True, exist_ok=True)
    try:
        left = source.expanded
        for one in held:
            left -= _unpacked(one, aside, left, watch)
        lacking = _lacking(aside, source)
        if lacking:
            raise DataError(f"{name}: what its archives hold is not the whole dataset: {lacking}")
        (aside / RECORD).write_text(json.dumps(_record(name, source, held), indent=2) + "\n", encoding="utf-8")
        aside.rename(place)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    watch.say(f"{place}: unpacked and counted")


def _unpacked(held: _Held, aside: Path, limit: int, watch: Watch) -> int:
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        watch.moved(f"unpacking {held.archive.file}", done, None)

    return unpack(held.path, held.archive.take, aside / held.archive.into, limit=limit, advance=advance)


def _lacking(folder: Path, source: Source) -> str:
    """Return a description of the missing files; empty if the dataset is complete."""
    found = {pattern: sum(1 for _ in folder.glob(pattern)) for pattern in source.counts}
    wrong = (f"{found[p]} instead of {count} {p}" for p, count in source.counts.items() if found[p] != count)
    return ", ".join(wrong)


def _record(name: str, source: Source, held: list[_Held]) -> dict[str, object]:
    archives = [
        {
            "file": one.archive.file,
            "url": one.url,
            "sha256": one.sha256,
            "verified": one.archive.checksum or "no published checksum; recorded on first fetch, files counted",
        }
        for one in held
    ]
    return {
        "dataset": name,
        "fetched": datetime.now(UTC).isoformat(timespec="seconds"),
        "archives": archives,
        "files": dict(source.counts),
        "terms": source.terms,
        "page": source.page,
    }


def _clear(held: list[_Held], keep: bool, watch: Watch) -> None:
    """Remove downloaded archives; archives without a recorded address are kept."""
    for one in held:
        ours = origin_of(one.path).is_file()
        if ours and not keep:
            one.path.unlink()
            origin_of(one.path).unlink()
        else:
            watch.say(f"{one.path}: kept")


def _url_of(target: Path) -> str | None:
    try:
        return str(json.loads(origin_of(target).read_text(encoding="utf-8"))["url"])
    except (OSError, ValueError, KeyError, TypeError):  # put there by a person, or the note is lost
        return None


def _room(store: Path, needed: int) -> None:
    free = shutil.disk_usage(store).free
    if needed > free:
        raise DataError(f"{store}: {needed:,} bytes are to come, and the disk has {free:,} free")
