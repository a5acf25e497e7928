"""Transfer of files in chunks between two labs without a shared disk."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from fcnlab.errors import RunError

CHUNK_BYTES = 8 * 2**20
"""Bytes of a message."""


@dataclass(frozen=True)
class FileChunk:
    """Consecutive bytes of a file. Chunks are sent in order, one file after another."""

    name: str
    content: bytes


def read_chunks(root: Path, names: Iterable[str]) -> Iterator[tuple[FileChunk, ...]]:
    """Yield the contents of files in messages of CHUNK_BYTES bytes; a missing file is left out.

    A file that is replaced meanwhile is read as it was: an open file outlives its name.

    Args:
        root: folder of the files.
        names: paths of the files relative to `root`.
    """
    batch: list[FileChunk] = []
    room = CHUNK_BYTES
    for name in names:
        with suppress(FileNotFoundError), (root / name).open("rb") as file:
            while True:
                content = file.read(room)
                batch.append(FileChunk(name, content))
                room -= len(content)
                if room:  # a short read: the file ends here
                    break
                yield tuple(batch)
                batch, room = [], CHUNK_BYTES
    if batch:
        yield tuple(batch)


class IncomingFiles:
    """Files that are received in chunks and moved into a folder together when they are complete."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._drafts = folder / ".arriving"
        self._names: list[str] = []
        shutil.rmtree(self._drafts, ignore_errors=True)  # left by a driver that was killed

    def receive(self, arrived: Iterable[FileChunk]) -> None:
        """Store received chunks.

        Args:
            arrived: the chunks.

        Raises:
            RunError: a name leads outside of the folder.
        """
        for chunk in arrived:
            _check_name(chunk.name)
            draft = self._drafts / chunk.name
            if chunk.name not in self._names:
                self._names.append(chunk.name)
                draft.parent.mkdir(parents=True, exist_ok=True)
            with draft.open("ab") as file:
                file.write(chunk.content)

    def commit(self) -> None:
        """Move all files into the folder atomically, in the order of arrival."""
        for name in self._names:
            with (self._drafts / name).open("rb") as file:
                os.fsync(file.fileno())
        for name in self._names:
            target = self._folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(self._drafts / name, target)
        self._names.clear()
        shutil.rmtree(self._drafts, ignore_errors=True)


def _check_name(name: str) -> None:
    """Check the name of a file from another machine."""
    path = PurePosixPath(name)
    if not path.parts or path.is_absolute() or ".." in path.parts or "\0" in name or "\\" in name:
        raise RunError(f"another machine has sent a file with the name {name!r}, which leads outside of its folder")
