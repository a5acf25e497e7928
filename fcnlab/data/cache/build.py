"""Building of caches of decoded samples, on all cores.

One process builds a cache under a lock while others wait for it. The lock of a killed process is released, and the next
build removes its incomplete files. If no cache can be built (read-only folder, folder of another user, full disk), a
warning is logged, and samples are decoded when they are used, with the same values.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from threading import Lock

import numpy as np

from fcnlab.data.cache.budget import CacheUnavailableError, check_estimate, describe_excess, find_room
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
from fcnlab.data.datasets.base import Dataset, Sample, read_sample
from fcnlab.data.datasets.folder import Folder
from fcnlab.data.parallel import Advance, StartProgress, map_on_all_cores
from fcnlab.errors import DataError
from fcnlab.file_lock import FileLock, Timeout
from fcnlab.paths import exists
from fcnlab.redaction import get_logger
from fcnlab.settings import cache_folder

SAMPLES_PER_FLUSH = 64
"""Number of samples between two flushes to the disk."""

ALIGNMENT = 64
"""Alignment of samples in bytes: a cache line of the processor."""


def try_open_or_build_cache(dataset: Dataset, split: str, progress: StartProgress | None = None) -> MappedCache | None:
    """Return the cache of a split, which is built if it is missing; log a warning and return None if that fails.

    Args:
        dataset: the dataset.
        split: name of the split.
        progress: called when a build starts.

    Raises:
        DataError: a file of the split is missing or invalid, or the budget is not a number.
    """
    try:
        return open_or_build_cache(dataset, split, progress)
    except CacheUnavailableError as reason:
        warn_once(f"{_name(dataset)} {split} is decoded when it is needed, with the same results: {reason}")
        return None


def open_or_build_cache(dataset: Dataset, split: str, progress: StartProgress | None = None) -> MappedCache:
    """Return the cache of a split, which is built if it is missing.

    Args:
        dataset: the dataset.
        split: name of the split.
        progress: called when a build starts.

    Raises:
        CacheUnavailableError: the cache cannot be built.
        DataError: a file of the split is missing or invalid, or the budget is not a number.
    """
    key = compute_cache_key(dataset, split)
    folder = decoded_cache_folder() / key
    ids = dataset.split(split).ids
    try:
        mapped = _open_matching(folder, ids)
        if mapped is None:
            _check_owner()
            with _wait_for_lock(folder, f"{_name(dataset)} {split}"):
                mapped = _open_matching(folder, ids) or _build(dataset, split, folder, progress)
    except (OSError, NotImplementedError, MemoryError) as error:  # a lock may be more than a file system can do
        raise CacheUnavailableError(
            f"{decoded_cache_folder()}: {getattr(error, 'strerror', None) or error or type(error).__name__}"
        ) from None
    _touch(folder)
    return mapped


@cache
def warn_once(line: str) -> None:
    """Log a warning once per process.

    Args:
        line: the message.
    """
    get_logger("fcnlab").warning(line)


def _name(dataset: Dataset) -> str:
    """Return a name for messages: the folder of a dataset, or the last two folders where it is one of images."""
    root = getattr(dataset, "root", None)
    if isinstance(dataset, Folder):
        return "/".join(dataset.root.parts[-2:])
    return root.name if isinstance(root, Path) else type(dataset).__name__.lower()


def _open_matching(folder: Path, ids: tuple[str, ...]) -> MappedCache | None:
    try:
        mapped = open_cache(folder)
    except (FileNotFoundError, BrokenCacheError):
        return None
    return mapped if mapped.index.ids == ids else None


def _touch(folder: Path) -> None:
    """Record the time of use; caches of another user cannot be changed."""
    with contextlib.suppress(OSError):
        os.utime(folder / INDEX)


def _check_owner() -> None:
    """Raise CacheUnavailableError if the cache folder belongs to another user: such folders are only read."""
    for folder in (decoded_cache_folder(), cache_folder()):
        if exists(folder) and folder.stat().st_uid != os.geteuid():
            raise CacheUnavailableError(f"{folder} belongs to another user and does not hold it")
    decoded_cache_folder().mkdir(parents=True, exist_ok=True)


def create_lock(folder: Path, timeout: float = -1) -> FileLock:
    """Return the lock that is held while a cache is built or removed.

    Args:
        folder: folder of the cache.
        timeout: seconds to wait for another process; negative for no limit.
    """
    return FileLock(folder.with_name(f"{folder.name}.lock"), timeout)


def partial_folder(folder: Path) -> Path:
    """Return the folder of a cache while it is built or removed.

    Args:
        folder: folder of the complete cache.
    """
    return folder.with_name(f"{folder.name}.partial")


@contextmanager
def _wait_for_lock(folder: Path, name: str) -> Iterator[None]:
    lock = create_lock(folder)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        warn_once(f"waiting for another process that is decoding {name}")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _build(dataset: Dataset, split: str, folder: Path, progress: StartProgress | None) -> MappedCache:
    """Build a cache and open it. The caller holds the lock."""
    remove_interrupted_builds()
    discard(folder)
    samples = dataset.split(split)
    limit = find_room()
    check_estimate(samples, limit)
    name = f"{_name(dataset)} {split}"
    if progress is None:
        warn_once(f"decoding {name} once ({len(samples)} images) into {folder}")
    try:
        partial_folder(folder).mkdir()
        with (partial_folder(folder) / PIXELS).open("xb", buffering=0) as file:
            out = _PixelFile(file.fileno(), limit)
            _write_samples(dataset, split, folder, out, progress(name, len(samples)) if progress else None)
            if compute_cache_key(dataset, split) != folder.name:
                raise CacheUnavailableError("its files changed while they were decoded")
            os.fsync(file.fileno())  # a power cut after the rename must not leave a complete cache of zeros
        partial_folder(folder).rename(folder)
        return open_cache(folder)
    except BrokenCacheError as reason:
        raise CacheUnavailableError(f"the new cache is invalid: {reason}") from None
    finally:
        shutil.rmtree(partial_folder(folder), ignore_errors=True)


def _write_samples(dataset: Dataset, name: str, folder: Path, out: _PixelFile, advance: Advance | None) -> None:
    places, split, num_classes = [], dataset.split(name), len(dataset.classes)
    for entry in map_on_all_cores(lambda i: out.add(read_sample(split, i, num_classes)), len(split), advance):
        places.append(entry)
        if len(places) % SAMPLES_PER_FLUSH == 0:  # the disk works while the cores decode, and not all at the end
            os.fsync(out.file)
    created = datetime.now(UTC).isoformat(timespec="seconds")
    table = np.array(places, dtype=np.int64).reshape(-1, 4)
    index = CacheIndex(folder.name, _name(dataset), name, created, split.ids, table, split.channels)
    raw = index.dump()
    (partial_folder(folder) / INDEX).write_bytes(raw)
    _write_at(out.file, seal(raw), int((index.places[:, 0] + index.sizes).max(initial=0)))


class _PixelFile:
    """The file of a cache, to which several threads append samples."""

    def __init__(self, file: int, limit: int) -> None:
        self.file, self._limit = file, limit
        self._end = 0
        self._turn = Lock()

    def add(self, sample: Sample) -> tuple[int, int, int, int]:
        """Append a sample and return its offset, height, width and crc32.

        Raises:
            CacheUnavailableError: the cache would exceed its maximum size.
        """
        height, width = sample.label.shape
        image, label = (np.ascontiguousarray(pixels).data.cast("B") for pixels in (sample.image, sample.label))
        with self._turn:
            offset = self._end
            self._end += -(-(image.nbytes + label.nbytes) // ALIGNMENT) * ALIGNMENT
            if self._end > self._limit:
                raise CacheUnavailableError(describe_excess(self._end, self._limit))
        _write_at(self.file, image, offset)
        _write_at(self.file, label, offset + image.nbytes)
        return offset, height, width, zlib.crc32(label, zlib.crc32(image))


def _write_at(file: int, data: bytes | memoryview, offset: int) -> None:
    remaining = memoryview(data)
    while remaining:
        written = os.pwrite(file, remaining, offset)
        remaining, offset = remaining[written:], offset + written


def restore_sample(cache: MappedCache, index: int, sample: Sample) -> None:
    """Replace a damaged sample of an open cache, also in its file if that can be written.

    Args:
        cache: the cache.
        index: index of the sample.
        sample: the sample, decoded again.

    Raises:
        DataError: the sample is not the one that was cached.
    """
    content = np.concatenate([np.ascontiguousarray(pixels).reshape(-1) for pixels in (sample.image, sample.label)])
    offset, *_, checksum = cache.index.places[index].tolist()
    folder, id_ = decoded_cache_folder() / cache.index.key, cache.index.ids[index]
    if len(content) != int(cache.index.sizes[index]) or zlib.crc32(content.data) != checksum:
        raise DataError(f"{folder}: '{id_}' is damaged, and its files have changed; remove the cache")
    cache.pixels[offset : offset + len(content)] = content
    warn_once(f"{folder}: '{id_}' differed from its checksum and was decoded again")
    with contextlib.suppress(OSError), (folder / PIXELS).open("r+b", buffering=0) as file:
        _write_at(file.fileno(), content.data, offset)
        os.fsync(file.fileno())


def discard(folder: Path) -> None:
    """Remove a cache. The caller holds the lock; processes that have mapped the cache can still read it.

    Args:
        folder: folder of the cache.
    """
    incomplete = partial_folder(folder)
    if exists(incomplete):
        shutil.rmtree(incomplete)
    with contextlib.suppress(FileNotFoundError):
        folder.rename(incomplete)
        shutil.rmtree(incomplete)


def remove_interrupted_builds() -> None:
    """Remove the files of builds that were killed."""
    for incomplete in decoded_cache_folder().glob("*.partial"):
        if not KEY.fullmatch(incomplete.stem):
            continue
        with contextlib.suppress(OSError), create_lock(incomplete.with_suffix(""), timeout=0):
            shutil.rmtree(incomplete, ignore_errors=True)
