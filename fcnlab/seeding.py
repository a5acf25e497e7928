"""Named, independent streams of random numbers, all derived from one seed.

The initialization of the backbone, that of the head, the order of the data and its augmentation use one stream each. So
another head does not change the order of the data: cells of a grid with the same seed see the same batches.
"""

from __future__ import annotations

import hashlib


def derive_seed(seed: int, *names: str | int) -> int:
    """Derive the seed of a named stream, the same on every machine.

    Args:
        seed: seed of the trial.
        *names: name of the stream, in one or more parts, such as `"augmentation", epoch, index`.

    Returns:
        A seed of 63 bits.

    Example:
        >>> derive_seed(0, "order", 3) == derive_seed(0, "order", 4)
        False
    """
    text = "/".join(map(str, (seed, *names)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
