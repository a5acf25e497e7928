"""Names of the files of a sample, from the id of its image."""

from __future__ import annotations

import hashlib

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
    if name == id_ and len(name.encode()) <= MAX_BYTES:
        return name
    digest = hashlib.sha256(id_.encode()).hexdigest()[:12]
    return f"{name.encode()[:MAX_BYTES].decode(errors='ignore')}-{digest}"
