"""Numbers of pixels of each label in a split, which are kept in the user's cache.

    <cache>/labels/<key>.json   number of pixels of each label; the key is that of the cache of decoded samples

`data add` and `data check` write them; otherwise they are counted in the cache of decoded samples. A plan therefore
knows which classes occur without decoding an image. The folder can be removed at any time.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fcnlab.constants import IGNORE_INDEX
from fcnlab.data.cache.format import (
    BrokenCacheError,
    MappedCache,
    compute_cache_key,
    decoded_cache_folder,
    is_intact,
    open_cache,
)
from fcnlab.data.datasets.base import Dataset, Pixels
from fcnlab.data.json_cache import read_json, write_json
from fcnlab.data.parallel import map_on_all_cores
from fcnlab.settings import cache_folder

LabelCounts = NDArray[np.int64]
"""Number of pixels of each label, int64 [256]; the last one is that of ignored pixels."""


def count_labels(label: Pixels) -> LabelCounts:
    """Return the number of pixels of each label, int64 [256].

    Args:
        label: labels of pixels, uint8 of any shape.
    """
    return np.bincount(label.ravel(), minlength=IGNORE_INDEX + 1).astype(np.int64, copy=False)


def no_counts() -> LabelCounts:
    """Return the label counts of no samples, int64 [256]."""
    return np.zeros(IGNORE_INDEX + 1, dtype=np.int64)


def save_label_counts(key: str, counts: LabelCounts) -> None:
    """Keep the label counts of a split for later processes.

    Args:
        key: key of the decoded samples of the split (`compute_cache_key`).
        counts: number of pixels of each label.
    """
    write_json(_file(key), {"pixels": {str(label): int(counts[label]) for label in np.flatnonzero(counts)}})


def load_label_counts(dataset: Dataset, split: str) -> LabelCounts | None:
    """Return the label counts of a split, if they are known or can be counted in a cache of decoded samples.

    Args:
        dataset: the dataset.
        split: name of the split.

    Returns:
        The number of pixels of each label; None if the split has not been read yet.

    Raises:
        DataError: the split or one of its files is missing.
    """
    key = compute_cache_key(dataset, split)
    stored = read_json(_file(key)).get("pixels")
    if isinstance(stored, dict):
        counts = no_counts()
        counts[[int(label) for label in stored]] = list(stored.values())
        return counts
    try:
        cache = open_cache(decoded_cache_folder() / key)
    except (BrokenCacheError, OSError):
        return None
    try:
        counts = sum(map_on_all_cores(lambda i: count_labels(_read_label(cache, i)), len(cache.index.ids)), no_counts())
    except BrokenCacheError:  # repaired when a trial reads the sample
        return None
    save_label_counts(key, counts)
    return counts


def _read_label(cache: MappedCache, index: int) -> Pixels:
    if not is_intact(cache, index):
        raise BrokenCacheError(f"'{cache.index.ids[index]}' differs from its checksum")
    offset, height, width, _ = cache.index.places[index].tolist()
    start = offset + cache.index.channels * height * width
    return cache.pixels[start : start + height * width]


def _file(key: str) -> Path:
    return cache_folder() / "labels" / f"{key}.json"
