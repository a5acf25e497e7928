"""Checkpoint files, which end with the SHA-256 of their content."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import IO, Any

from fcnlab.atomic_file import replace_atomically
from fcnlab.paths import exists
from fcnlab.trial.storage.damage import DamageError, convert_read_error

_MARK = b"fcnlab-sha256:"

TRAILER = len(_MARK) + hashlib.sha256().digest_size
"""Bytes after the state: a mark and the digest. `torch.load` ignores them."""


def write_checkpoint(path: Path, previous: Path, state: Any) -> None:
    """Write a checkpoint; the one that it replaces is kept.

    Args:
        path: path of the checkpoint.
        previous: new path of the checkpoint that exists at `path`.
        state: tensors and plain values.

    Raises:
        OSError: it cannot be written.
    """
    import torch

    with replace_atomically(path) as temporary:
        with temporary.open("wb") as file:
            torch.save(state, file)
        with temporary.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").digest()
        with temporary.open("ab") as file:
            file.write(_MARK + digest)
            file.flush()
            os.fsync(file.fileno())
        if exists(path):
            os.replace(path, previous)


def find_checkpoint_damage(path: Path) -> DamageError | None:
    """Return the damage of a checkpoint; None if it is intact or does not exist.

    Args:
        path: path of the checkpoint.
    """
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size - TRAILER
            digest = _hash_start(file, size) if size > 0 else b""
            intact = digest != b"" and file.read() == _MARK + digest
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        return convert_read_error(path.name, error)
    return None if intact else DamageError(path.name, "its content does not agree with its checksum")


def _hash_start(file: IO[bytes], size: int) -> bytes:
    digest = hashlib.sha256()
    while size > 0 and (block := file.read(min(size, 2**20))):
        digest.update(block)
        size -= len(block)
    return digest.digest()
