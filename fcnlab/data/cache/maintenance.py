"""Listing, verification and removal of caches of decoded samples."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from filelock import Timeout

from fcnlab.data.cache.build import discard, lock, partial
from fcnlab.data.cache.format import INDEX, KEY, BrokenCacheError, MappedCache, decoded_cache_folder, open_cache
from fcnlab.data.parallel import Advance, map_on_all_cores
from fcnlab.errors import DataError, nearest


@dataclass(frozen=True)
class Entry:
    """A cache on the disk.

    Attributes:
        folder: folder of the cache.
        state: `complete`, `being made`, `interrupted`, or `broken: ` with the reason.
        size: bytes on the disk.
        used: time of the last use in UTC; of an incomplete cache, the time of the last write.
        dataset: name of the dataset; empty if the cache is incomplete.
        split: name of the split.
        images: number of samples.
        made: time of the build, ISO 8601 in UTC.
    """

    folder: Path
    state: str
    size: int
    used: datetime
    dataset: str = ""
    split: str = ""
    images: int | None = None
    made: str = ""

    @property
    def key(self) -> str:
        """The name of the cache."""
        return self.folder.name

    @property
    def complete(self) -> bool:
        """Whether the cache can be used."""
        return self.state == "complete"


def entries() -> list[Entry]:
    """Return all caches, the most recently used first.

    Raises:
        DataError: the folder of the caches cannot be read.
    """
    try:
        there = list(decoded_cache_folder().iterdir()) if decoded_cache_folder().is_dir() else []
        named = {path.with_suffix("") for path in there if path.is_dir() and KEY.fullmatch(path.stem)}
        found = [entry for entry in map(_entry, sorted(named)) if entry is not None]
    except OSError as error:
        raise DataError(f"{decoded_cache_folder()}: cannot be read: {error.strerror}") from None
    return sorted(found, key=lambda entry: entry.used, reverse=True)


def _entry(folder: Path) -> Entry | None:
    """Return the state of a cache, or None if it was removed in the meantime."""
    try:
        if not folder.is_dir():
            beside = partial(folder)
            state = "being made" if _held(folder) else "interrupted"
            return Entry(folder, state, _size(beside), _time(beside))
        try:
            index = open_cache(folder).index
        except BrokenCacheError as reason:
            return Entry(folder, f"broken: {reason}", _size(folder), _time(folder))
        size, used = _size(folder), _time(folder / INDEX)
        return Entry(folder, "complete", size, used, index.dataset, index.split, len(index.ids), index.made)
    except FileNotFoundError:
        return None


def _held(folder: Path) -> bool:
    try:
        with lock(folder).acquire(timeout=0):
            return False
    except OSError:  # held (a Timeout is one); or another user's, which cannot be tried: what it guards is left alone
        return True


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


def _time(path: Path) -> datetime:
    return datetime.fromtimestamp(path.stat().st_mtime, UTC)


def select(keys: Iterable[str]) -> list[Entry]:
    """Return the caches with these keys.

    Args:
        keys: keys, or unique prefixes of keys.

    Raises:
        DataError: no cache or several caches match.
    """
    there = {entry.key: entry for entry in entries()}
    chosen = {}
    for key in keys:
        matching = [name for name in there if name.startswith(key)]
        if len(matching) != 1:
            setting = (
                f"begins {len(matching)} keys; give more of it" if matching else f"no such cache; {nearest(key, there)}"
            )
            raise DataError(f"{decoded_cache_folder()}: '{key}': {setting}")
        chosen[matching[0]] = there[matching[0]]
    return list(chosen.values())


def problems(entry: Entry, advance: Advance | None = None) -> Iterator[str]:
    """Yield one message per problem of a cache: each sample whose bytes differ from its checksum.

    Args:
        entry: the cache.
        advance: called after each sample.
    """
    try:
        cache = open_cache(entry.folder)
    except (BrokenCacheError, OSError) as reason:
        yield f"{entry.key}: {reason}"
        return
    sound = map_on_all_cores(lambda i: _sound(cache, i), len(cache.index.ids), advance)
    for id_, good in zip(cache.index.ids, sound, strict=True):
        if not good:
            yield (
                f"{entry.key}: {cache.index.dataset} {cache.index.split}: '{id_}' is not as it was written; "
                f"remove the cache with `fcnlab data cache clear {entry.key}`, and the next trial makes it again"
            )


def _sound(cache: MappedCache, index: int) -> bool:
    offset, *_, checksum = cache.index.places[index].tolist()
    return zlib.crc32(cache.pixels[offset : offset + int(cache.index.sizes[index])].data) == checksum


def clear(entry: Entry) -> bool:
    """Remove a cache; return False if it is being built.

    Args:
        entry: the cache.

    Raises:
        DataError: the cache cannot be removed.
    """
    try:
        with lock(entry.folder).acquire(timeout=0):
            discard(entry.folder)
    except Timeout:
        return False
    except OSError as error:
        raise DataError(f"{entry.folder}: cannot be removed: {error.strerror}") from None
    return True


def unused(since: timedelta) -> list[Entry]:
    """Return the caches that have not been used for some time.

    Args:
        since: minimum time since the last use.
    """
    now = datetime.now(UTC)
    return [entry for entry in entries() if now - entry.used > since]
