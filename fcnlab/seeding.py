"""Separate, named streams of random numbers, all derived from one seed.

The initialisation of the backbone, that of the head, the order of the data and its augmentation each have their own
stream. So swapping the head leaves the data order alone: cells of one grid with the same seed see the same batches.
"""

from __future__ import annotations

import hashlib


def derive_seed(seed: int, *names: str | int) -> int:
    """A seed of 63 bits for the stream called `names`, the same on every machine."""
    text = "/".join(map(str, (seed, *names)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
