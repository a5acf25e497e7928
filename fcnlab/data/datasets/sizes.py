"""Sizes of the images of a split, read without decoding them where possible."""

from __future__ import annotations

from collections import Counter

from fcnlab.data.datasets.base import Split
from fcnlab.data.json_cache import cache_file, read_json, write_json
from fcnlab.errors import DataError

MAX_DECODED = 4
"""Number of images that are decoded if a split cannot read sizes without decoding."""

Sizes = Counter[tuple[int, int]]
"""Number of images by height and width."""


def read_sizes(split: Split, name: str, content: str) -> Sizes:
    """Count the images of a split by size. The result is cached.

    Files that cannot be read are left out; the trials that read them report the error.

    Args:
        split: the split. If it does not define `size`, a few of its images are decoded and represent the others.
        name: name of the split.
        content: fingerprint of the dataset.

    Returns:
        Number of images by height and width in pixels.
    """
    store = cache_file("sizes", [content, name, len(split)])
    known = read_json(store)
    if "sizes" in known:
        return Counter({(height, width): count for height, width, count in known["sizes"]})
    step = 1 if type(split).size is not Split.size else max(1, -(-len(split) // MAX_DECODED))
    found: Sizes = Counter()
    for index in range(0, len(split), step):
        try:
            found[split.size(index)] += step
        except DataError:
            continue
    write_json(store, {"sizes": [[height, width, count] for (height, width), count in found.items()]})
    return found


def representative_sizes(sizes: Sizes) -> tuple[tuple[int, int], ...]:
    """Return the sizes at which a network is tried: the most frequent, the lowest, the narrowest and the largest.

    Args:
        sizes: number of images by height and width.

    Returns:
        Heights and widths without duplicates; empty if there is no size.
    """
    if not sizes:
        return ()
    most = max(sorted(sizes), key=lambda size: sizes[size])
    found = (most, min(sizes), min(sizes, key=lambda size: size[::-1]), max(sizes, key=lambda s: (s[0] * s[1], s)))
    return tuple(dict.fromkeys(found))
