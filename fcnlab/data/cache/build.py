"""Makes a cache of decoded samples: once, on all cores, whole or not at all.

One process makes it under a lock while the others wait; a process that is killed gives up its lock, and what it left
is removed by the next that makes a cache. Where there can be no cache (read-only, another user's, no room), that is
said in one line and samples are decoded where they are needed, with the same figures.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from threading import Lock

import numpy as np
from filelock import FileLock, Timeout

from fcnlab.data.cache.format import (
    INDEX,
    KEY,
    PIXELS,
    BrokenCacheError,
    CacheIndex,
    MappedCache,
    compute_cache_key,
    decoded_cache_folder,
    open_cache,
    seal,
)
from fcnlab.data.datasets.base import Dataset, Sample, Split
from fcnlab.data.parallel import Advance, StartProgress, map_on_all_cores
from fcnlab.errors import DataError
from fcnlab.settings import cache_folder

BUDGET = "FCNLAB_CACHE_BUDGET"
"""Environment variable: GiB that all caches of decoded samples may take together; 0 makes none."""

RESERVE = 2**30
"""Bytes of the disk that are never taken."""

SHARE = 0.5
"""Of the free disk beyond the reserve, what one cache may take where no budget is set."""

PROBED = 4
"""Samples that are decoded to see how large a cache would be; a split of no more is simply begun."""

SYNCED = 64
"""Samples after which what is written is sent to the disk."""

ALIGNED = 64
"""Samples begin at a multiple of this many bytes: a line of the processor's cache."""


class CacheUnavailableError(Exception):
    """There can be no cache here and now. `str(error)` is the reason."""


def try_open_or_build_cache(dataset: Dataset, split: str, progress: StartProgress | None = None) -> MappedCache | None:
    """The cache of a split, made if it is not there; None, said in one line, where there can be none.

    Raises:
        DataError: a file of the split is missing or faulty, or the budget is no number.
    """
    try:
        return open_or_build_cache(dataset, split, progress)
    except CacheUnavailableError as reason:
        warn_once(f"{_name(dataset)} {split} is decoded where it is needed, with the same figures: {reason}")
        return None


def open_or_build_cache(dataset: Dataset, split: str, progress: StartProgress | None = None) -> MappedCache:
    """The cache of a split, made if it is not there.

    Raises:
        NoCache: there can be none.
        DataError: as `mapped`.
    """
    key = compute_cache_key(dataset, split)
    folder = decoded_cache_folder() / key
    ids = dataset.split(split).ids
    try:
        found = _opened(folder, ids)
        if found is None:
            _refuse_others()
            with _waited_for(folder, f"{_name(dataset)} {split}"):
                found = _opened(folder, ids) or _made(dataset, split, folder, progress)
    except (OSError, NotImplementedError, MemoryError) as error:  # a lock may be more than a file system can do
        raise CacheUnavailableError(
            f"{decoded_cache_folder()}: {getattr(error, 'strerror', None) or error or type(error).__name__}"
        ) from None
    _touch(folder)
    return found


@cache
def warn_once(line: str) -> None:
    """Say something on standard error, once in a process."""
    logging.getLogger("fcnlab").warning(line)


def _name(dataset: Dataset) -> str:
    root = getattr(dataset, "root", None)
    return root.name if isinstance(root, Path) else type(dataset).__name__.lower()


def _opened(folder: Path, ids: tuple[str, ...]) -> MappedCache | None:
    try:
        found = open_cache(folder)
    except (FileNotFoundError, BrokenCacheError):
        return None
    return found if found.index.ids == ids else None


def _touch(folder: Path) -> None:
    """Keep when the cache was last used. Another user's cannot be touched, and need not be."""
    with contextlib.suppress(OSError):
        os.utime(folder / INDEX)


def _refuse_others() -> None:
    """What another user owns is read and not written, even where it could be.

    Raises:
        NoCache: the cache belongs to another user.
    """
    for folder in (decoded_cache_folder(), cache_folder()):
        if folder.exists() and folder.stat().st_uid != os.geteuid():
            raise CacheUnavailableError(f"{folder} belongs to another user and does not hold it")
    decoded_cache_folder().mkdir(parents=True, exist_ok=True)


def lock(folder: Path) -> FileLock:
    """The lock of whoever makes or removes this cache."""
    return FileLock(folder.with_name(f"{folder.name}.lock"))


def partial(folder: Path) -> Path:
    """Where a cache lies while it is made or removed."""
    return folder.with_name(f"{folder.name}.partial")


@contextmanager
def _waited_for(folder: Path, what: str) -> Iterator[None]:
    held = lock(folder)
    try:
        held.acquire(timeout=0)
    except Timeout:
        warn_once(f"waiting for another process that is decoding {what}")
        held.acquire()
    try:
        yield
    finally:
        held.release()


def _made(dataset: Dataset, split: str, folder: Path, progress: StartProgress | None) -> MappedCache:
    """Make a cache and open it; the lock is held."""
    sweep()
    discard(folder)
    opened = dataset.split(split)
    limit = _room()
    _probe(opened, limit)
    what = f"{_name(dataset)} {split}"
    if progress is None:
        warn_once(f"decoding {what} once ({len(opened)} images) into {folder}")
    try:
        partial(folder).mkdir()
        with (partial(folder) / PIXELS).open("xb", buffering=0) as file:
            out = _Out(file.fileno(), limit)
            _write(opened, folder, (_name(dataset), split), out, progress(what, len(opened)) if progress else None)
            # A power cut after the rename must not leave a complete cache of zeros.
            with _sent_to_disk(file.fileno()):
                if compute_cache_key(dataset, split) != folder.name:
                    raise CacheUnavailableError("its files changed while they were decoded")
        partial(folder).rename(folder)
        return open_cache(folder)
    except BrokenCacheError as reason:
        raise CacheUnavailableError(f"what was just written is broken: {reason}") from None
    finally:
        shutil.rmtree(partial(folder), ignore_errors=True)


def _write(split: Split, folder: Path, names: tuple[str, str], out: _Out, advance: Advance | None) -> None:
    places = []
    for place in map_on_all_cores(lambda i: out.add(split[i]), len(split), advance):
        places.append(place)
        if len(places) % SYNCED == 0:  # the disk works while the cores decode, and not all at the end
            os.fsync(out.file)
    made = datetime.now(UTC).isoformat(timespec="seconds")
    index = CacheIndex(folder.name, *names, made, split.ids, np.array(places, dtype=np.int64).reshape(-1, 4))
    raw = index.dump()
    (partial(folder) / INDEX).write_bytes(raw)
    _put(out.file, seal(raw), int((index.places[:, 0] + index.sizes).max(initial=0)))


@contextmanager
def _sent_to_disk(file: int) -> Iterator[None]:
    """Send what was written to the disk while something else is done; at the end it is there."""
    with ThreadPoolExecutor(1, thread_name_prefix="disk") as pool:
        sent = pool.submit(os.fsync, file)
        yield
        sent.result()


class _Out:
    """Where samples are written, by several threads at once, in the order in which they are done."""

    def __init__(self, file: int, limit: int) -> None:
        self.file, self._limit = file, limit
        self._end = 0
        self._turn = Lock()

    def add(self, sample: Sample) -> tuple[int, int, int, int]:
        """Write a sample; gives its offset, height, width and crc32.

        Raises:
            NoCache: it does not fit any more.
        """
        height, width = sample.label.shape
        image, label = (np.ascontiguousarray(pixels).data.cast("B") for pixels in (sample.image, sample.label))
        with self._turn:
            offset = self._end
            self._end += -(-(image.nbytes + label.nbytes) // ALIGNED) * ALIGNED
            if self._end > self._limit:
                raise CacheUnavailableError(_too_large(self._end, self._limit))
        _put(self.file, image, offset)
        _put(self.file, label, offset + image.nbytes)
        return offset, height, width, zlib.crc32(label, zlib.crc32(image))


def _put(file: int, data: bytes | memoryview, offset: int) -> None:
    left = memoryview(data)
    while left:
        written = os.pwrite(file, left, offset)
        left, offset = left[written:], offset + written


def _room() -> int:
    """Bytes that a new cache may take."""
    free = shutil.disk_usage(decoded_cache_folder()).free - RESERVE
    budget = _budget()
    if budget is None:
        return int(SHARE * free)
    taken = sum(path.stat().st_size for path in decoded_cache_folder().glob(f"*/{PIXELS}"))
    return min(free, budget - taken)


def _budget() -> int | None:
    """The budget in bytes, or None where none is set.

    Raises:
        DataError: it is no number of GiB.
    """
    said = os.environ.get(BUDGET)
    if not said:
        return None
    try:
        gib = float(said)
    except ValueError:
        gib = -1.0
    if not 0 <= gib < 2**40:
        raise DataError(f"{BUDGET}={said}: not a number of GiB; valid: 0 (no cache), 20, 0.5, or unset")
    return int(gib * 2**30)


def _probe(split: Split, limit: int) -> None:
    """Refuse what is much too large before it is begun.

    Raises:
        NoCache: by a few samples of it, the split does not fit.
    """
    if len(split) <= PROBED:
        return
    sizes = map_on_all_cores(lambda i: 4 * split[len(split) * i // PROBED].label.size, PROBED)
    expected = len(split) * sum(sizes) // PROBED
    if expected > limit:
        raise CacheUnavailableError(_too_large(expected, limit))


def _too_large(size: int, limit: int) -> str:
    return (
        f"a cache of {size / 2**30:.2f} GiB is more than the {max(0, limit) / 2**30:.2f} GiB that it may take in "
        f"{decoded_cache_folder()}; make room (fcnlab data cache clear --older-than 30) or set {BUDGET}"
    )


def discard(folder: Path) -> None:
    """Remove a cache; the lock is held. It is gone at once, and who has mapped it keeps what is mapped."""
    beside = partial(folder)
    if beside.exists():
        shutil.rmtree(beside)
    with contextlib.suppress(FileNotFoundError):
        folder.rename(beside)
        shutil.rmtree(beside)


def sweep() -> None:
    """Remove what builds that were killed left behind."""
    for beside in decoded_cache_folder().glob("*.partial"):
        if not KEY.fullmatch(beside.stem):
            continue
        with contextlib.suppress(OSError), lock(beside.with_suffix("")).acquire(timeout=0):
            shutil.rmtree(beside, ignore_errors=True)
