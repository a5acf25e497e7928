"""Disk budget for caches of decoded samples."""

from __future__ import annotations

import os
import shutil

from fcnlab.console import format_bytes
from fcnlab.data.cache.format import PIXELS, decoded_cache_folder
from fcnlab.data.datasets.base import Split
from fcnlab.data.parallel import map_on_all_cores
from fcnlab.errors import DataError

BUDGET_VARIABLE = "FCNLAB_CACHE_BUDGET"
"""Environment variable: maximum total size of all caches in GiB; 0 disables caches."""

RESERVE = 2**30
"""Bytes of the disk that caches leave free."""

SHARE = 0.5
"""Fraction of the free disk beyond the reserve that one cache may use if no budget is set."""

PROBED = 4
"""Number of samples that are decoded to estimate the size of a cache."""


class CacheUnavailableError(Exception):
    """A cache cannot be built or opened. `str(error)` is the reason."""


def find_room() -> int:
    """Return the maximum size of a new cache in bytes.

    Raises:
        DataError: the budget is not a number.
    """
    free = shutil.disk_usage(decoded_cache_folder()).free - RESERVE
    budget = _budget()
    if budget is None:
        return int(SHARE * free)
    used = sum(path.stat().st_size for path in decoded_cache_folder().glob(f"*/{PIXELS}"))
    return min(free, budget - used)


def _budget() -> int | None:
    """Return the budget in bytes, or None if it is not set."""
    setting = os.environ.get(BUDGET_VARIABLE)
    if not setting:
        return None
    try:
        gib = float(setting)
    except ValueError:
        gib = -1.0
    if not 0 <= gib < 2**40:
        raise DataError(f"{BUDGET_VARIABLE}={setting}: not a number of GiB; valid: 0 (no cache), 20, 0.5, or unset")
    return int(gib * 2**30)


def check_estimate(split: Split, limit: int) -> None:
    """Check the estimated size of the cache of a split, before it is built.

    Args:
        split: the split.
        limit: maximum size in bytes.

    Raises:
        CacheUnavailableError: the cache would exceed the limit.
    """
    if len(split) <= PROBED:
        return
    sizes = map_on_all_cores(lambda i: (split.channels + 1) * split[len(split) * i // PROBED].label.size, PROBED)
    expected = len(split) * sum(sizes) // PROBED
    if expected > limit:
        raise CacheUnavailableError(describe_excess(expected, limit))


def describe_excess(size: int, limit: int) -> str:
    """Return why a cache is too large, and the remedy.

    Args:
        size: size of the cache in bytes.
        limit: maximum size in bytes.
    """
    room = f"{format_bytes(max(0, limit))} that it may take in {decoded_cache_folder()}, where 1 GiB stays free"
    return (
        f"a cache of {format_bytes(size)} is more than the {room}; make room (`fcnlab data cache clear`), "
        f"set FCNLAB_CACHE to a folder of another disk, or set {BUDGET_VARIABLE}"
    )
