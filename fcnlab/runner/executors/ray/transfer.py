"""Files on their way between two labs that share no disk, in pieces of a few megabytes."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

CHUNK_BYTES = 8 * 2**20
"""Bytes that are sent at once: small beside any memory, large beside the cost of a message."""


@dataclass(frozen=True)
class FileChunk:
    """Some bytes of a file; the pieces of a file come in order, and those of one file after those of another."""

    name: str
    content: bytes


def pieces(root: Path, names: Iterable[str]) -> Iterator[tuple[FileChunk, ...]]:
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
                if room:  # less than was asked for: the file ends here
                    break
                yield tuple(batch)
                batch, room = [], CHUNK_BYTES
    if batch:
        yield tuple(batch)


class IncomingFiles:
    """Files that arrive in pieces, and take their places below a folder together once they are whole."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._drafts = folder / ".arriving"
        self._names: list[str] = []
        shutil.rmtree(self._drafts, ignore_errors=True)  # of a driver that was killed

    def take(self, arrived: Iterable[FileChunk]) -> None:
        """Keep these pieces."""
        for piece in arrived:
            draft = self._drafts / piece.name
            if piece.name not in self._names:
                self._names.append(piece.name)
                draft.parent.mkdir(parents=True, exist_ok=True)
            with draft.open("ab") as file:
                file.write(piece.content)

    def place(self) -> None:
        """Put every file into its place, in the order of arrival; each is seen as it was before, or whole."""
        for name in self._names:
            with (self._drafts / name).open("rb") as file:
                os.fsync(file.fileno())
        for name in self._names:
            place = self._folder / name
            place.parent.mkdir(parents=True, exist_ok=True)
            os.replace(self._drafts / name, place)
        self._names.clear()
        shutil.rmtree(self._drafts, ignore_errors=True)
