"""Listing, verification and removal of caches of decoded samples."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from fcnlab.data.cache.build import create_lock, discard, partial_folder
from fcnlab.data.cache.format import INDEX, KEY, BrokenCacheError, decoded_cache_folder, is_intact, open_cache
from fcnlab.data.parallel import Advance, map_on_all_cores
from fcnlab.errors import DataError, nearest
from fcnlab.file_lock import Timeout
from fcnlab.paths import is_folder


@dataclass(frozen=True)
class CacheInfo:
    """A cache on the disk.

    Attributes:
        folder: folder of the cache.
        state: `complete`, `being built`, `interrupted`, or `broken: ` with the reason.
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
        """True if the cache can be used."""
        return self.state == "complete"


def list_caches() -> list[CacheInfo]:
    """Return all caches, the most recently used first.

    Raises:
        DataError: the folder of the caches cannot be read.
    """
    try:
        entries = list(decoded_cache_folder().iterdir()) if is_folder(decoded_cache_folder()) else []
        folders = {path.with_suffix("") for path in entries if is_folder(path) and KEY.fullmatch(path.stem)}
        caches = [info for info in map(_read_info, sorted(folders)) if info is not None]
    except OSError as error:
        raise DataError(f"{decoded_cache_folder()}: cannot be read: {error.strerror}") from None
    return sorted(caches, key=lambda info: info.used, reverse=True)


def _read_info(folder: Path) -> CacheInfo | None:
    """Return the state of a cache, or None if it was removed in the meantime."""
    try:
        if not is_folder(folder):
            unfinished = partial_folder(folder)
            state = "being built" if _is_locked(folder) else "interrupted"
            return CacheInfo(folder, state, _size(unfinished), _time(unfinished))
        try:
            index = open_cache(folder).index
        except BrokenCacheError as reason:
            return CacheInfo(folder, f"broken: {reason}", _size(folder), _time(folder))
        size, used = _size(folder), _time(folder / INDEX)
        return CacheInfo(folder, "complete", size, used, index.dataset, index.split, len(index.ids), index.made)
    except FileNotFoundError:
        return None


def _is_locked(folder: Path) -> bool:
    try:
        with create_lock(folder, timeout=0):
            return False
    except OSError:  # held (Timeout is a subclass), or owned by another user
        return True


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


def _time(path: Path) -> datetime:
    return datetime.fromtimestamp(path.stat().st_mtime, UTC)


def find_caches(keys: Iterable[str]) -> list[CacheInfo]:
    """Return the caches with these keys.

    Args:
        keys: keys, or unique prefixes of keys.

    Raises:
        DataError: no cache or several caches match.
    """
    caches = {info.key: info for info in list_caches()}
    chosen = {}
    for key in keys:
        matching = [name for name in caches if name.startswith(key)]
        if len(matching) != 1:
            reason = (
                f"matches {len(matching)} keys; use a longer prefix"
                if matching
                else f"no such cache; {nearest(key, caches)}"
            )
            raise DataError(f"{decoded_cache_folder()}: '{key}': {reason}")
        chosen[matching[0]] = caches[matching[0]]
    return list(chosen.values())


def find_problems(info: CacheInfo, advance: Advance | None = None) -> Iterator[str]:
    """Yield one message per problem of a cache: each sample whose bytes differ from its checksum.

    Args:
        info: the cache.
        advance: called after each sample.
    """
    try:
        cache = open_cache(info.folder)
    except (BrokenCacheError, OSError) as reason:
        yield f"{info.key}: {reason}"
        return
    valid = map_on_all_cores(lambda i: is_intact(cache, i), len(cache.index.ids), advance)
    for id_, good in zip(cache.index.ids, valid, strict=True):
        if not good:
            yield (
                f"{info.key}: {cache.index.dataset} {cache.index.split}: '{id_}' differs from its checksum; "
                f"remove the cache with `fcnlab data cache clear {info.key}`, and the next trial builds it again"
            )


def remove_cache(info: CacheInfo) -> bool:
    """Remove a cache; return False if it is being built.

    Args:
        info: the cache.

    Raises:
        DataError: the cache cannot be removed.
    """
    try:
        with create_lock(info.folder, timeout=0):
            discard(info.folder)
    except Timeout:
        return False
    except OSError as error:
        raise DataError(f"{info.folder}: cannot be removed: {error.strerror}") from None
    return True


def find_unused_caches(since: timedelta) -> list[CacheInfo]:
    """Return the caches that have not been used for some time.

    Args:
        since: minimum time since the last use.
    """
    now = datetime.now(UTC)
    return [info for info in list_caches() if now - info.used > since]
