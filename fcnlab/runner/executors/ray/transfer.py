"""Transfer of files in chunks between two labs without a shared disk."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

CHUNK_BYTES = 8 * 2**20
"""Bytes of a message."""


@dataclass(frozen=True)
class FileChunk:
    """Consecutive bytes of a file. Chunks are sent in order, one file after another."""

    name: str
    content: bytes


def read_chunks(root: Path, names: Iterable[str]) -> Iterator[tuple[FileChunk, ...]]:
    """The files of these names below `root` that are there, PIECES bytes at a time.

    A file that is replaced meanwhile is read as it was: an open file outlives its name.
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
        """
        for piece in arrived:
            draft = self._drafts / piece.name
            if piece.name not in self._names:
                self._names.append(piece.name)
                draft.parent.mkdir(parents=True, exist_ok=True)
            with draft.open("ab") as file:
                file.write(piece.content)

    def commit(self) -> None:
        """Move all files into the folder atomically, in the order of arrival."""
        for name in self._names:
            with (self._drafts / name).open("rb") as file:
                os.fsync(file.fileno())
        for name in self._names:
            place = self._folder / name
            place.parent.mkdir(parents=True, exist_ok=True)
            os.replace(self._drafts / name, place)
        self._names.clear()
        shutil.rmtree(self._drafts, ignore_errors=True)
