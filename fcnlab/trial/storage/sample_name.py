"""Names of the files of a sample, from the id of its image."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence

from fcnlab.paths import fold_name

MAX_BYTES = 200
"""Longest beginning of a name; file systems allow 255 bytes with the role and the extension."""


def name_sample(id_: str) -> str:
    """Return the beginning of the names of a sample's files, without a path.

    Args:
        id_: id of the image. A path, and a name that is too long, get a digest of the id, so that names are unique.

    >>> name_sample("0001TP_008550"), name_sample("aachen/aachen_000000")
    ('0001TP_008550', 'aachen_aachen_000000-1e3d92b6ef30')
    """
    name = id_.replace("/", "_")
    return name if name == id_ and len(name.encode()) <= MAX_BYTES else _add_digest(name, id_)


def name_samples(ids: Sequence[str]) -> dict[str, str]:
    """Return the beginning of the names of the files of each sample of a split, by id.

    Ids that differ only in case or in the form of accents get a digest, too: on some file systems, their files would
    replace each other.

    Args:
        ids: all ids of the split.

    >>> [name[:2] for name in name_samples(["A", "a", "b"]).values()]
    ['A-', 'a-', 'b']
    """
    occurrences = Counter(map(fold_name, ids))
    return {id_: name_sample(id_) if occurrences[fold_name(id_)] == 1 else _add_digest(id_, id_) for id_ in ids}


def _add_digest(name: str, id_: str) -> str:
    name = name.replace("/", "_")
    digest = hashlib.sha256(id_.encode()).hexdigest()[:12]
    return f"{name.encode()[:MAX_BYTES].decode(errors='ignore')}-{digest}"
