"""What lies behind a grid's figures: the records and the per-image counts of its finished trials."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

from fcnlab.errors import RunError
from fcnlab.tracking.tracker import MlflowTracker
from fcnlab.trial.record import Record
from fcnlab.trial.run_folder import RunFolder

if TYPE_CHECKING:
    from fcnlab.metrics.confusion import Counts


@dataclass(frozen=True)
class TrialRecords:
    """The run folder and the record of each finished trial: label -> seed -> both.

    `checkpoint` is the epoch at which the grid reports, `last` or `best`.
    """

    folders: dict[str, dict[int, RunFolder]]
    by_cell: dict[str, dict[int, Record]]
    checkpoint: Literal["last", "best"]

    def counts(self, cell: str) -> SeedCounts:
        """The counts of a cell's trials on the reported split, read when they are asked for."""
        there = {seed: folder for seed, folder in self.folders.get(cell, {}).items() if folder.counts.is_file()}
        return SeedCounts({seed: (folder, self.array(cell, seed)) for seed, folder in there.items()})

    def array(self, cell: str, seed: int) -> str:
        """What the counts of a trial on the reported split are called in its file."""
        return f"{self.by_cell[cell][seed].report_split}_{self.checkpoint}"

    def ids(self, cell: str, seed: int) -> tuple[str, ...]:
        """The ids of the images of the reported split, in the order of the counts."""
        split = self.by_cell[cell][seed].report_split
        return tuple(map(str, read_array(self.folders[cell][seed], f"{split}_ids")))

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes; none where no trial has finished."""
        return next((record.classes for cell in self.by_cell.values() for record in cell.values()), ())


class SeedCounts(Mapping[int, "Counts"]):
    """Seed -> counts [images, classes, 3]. Those of a large grid would fill the memory, so each is read when used."""

    def __init__(self, sources: Mapping[int, tuple[RunFolder, str]]) -> None:
        self._sources = sources

    def __getitem__(self, seed: int) -> Counts:
        return read_array(*self._sources[seed])

    def __iter__(self) -> Iterator[int]:
        return iter(self._sources)

    def __len__(self) -> int:
        return len(self._sources)


def read_array(folder: RunFolder, name: str) -> Counts:
    """An array of a trial's counts.

    Raises:
        RunError: the file is damaged or has no such array.
    """
    try:
        with np.load(folder.counts) as arrays:
            return arrays[name]
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise RunError(f"{folder.counts}: no counts '{name}' can be read from it: {error}") from None


def load_records(
    trials: pd.DataFrame, runs: Path, tracker: MlflowTracker | None, kept: Path, checkpoint: Literal["last", "best"]
) -> TrialRecords:
    """The evidence of a frame of trials: from runs/, and what was run elsewhere from the tracker.

    What comes from the book is kept below `kept`, in folders as those of runs/.
    """
    folders: dict[str, dict[int, RunFolder]] = {}
    by_cell: dict[str, dict[int, Record]] = {}
    finished = trials[trials["status"] == "finished"]
    for cell, seed, key, run_id in finished[["cell", "seed", "key", "run_id"]].itertuples(index=False):
        folder = RunFolder(runs, key)
        record = folder.read()
        if record is None and tracker is not None:
            folder = _fetched(RunFolder(kept, key), run_id, tracker)
            record = folder.read()
        if record is not None:
            folders.setdefault(str(cell), {})[int(seed)] = folder
            by_cell.setdefault(str(cell), {})[int(seed)] = record
    return TrialRecords(folders, by_cell, checkpoint)


def _fetched(folder: RunFolder, run_id: str, tracker: MlflowTracker) -> RunFolder:
    """The folder with what the book has of a trial; the record comes last, so that one that is there is whole."""
    if folder.read() is None:
        folder.create()
        for artifact in ("samples", folder.counts.name, folder.record.name):
            tracker.download_artifact(run_id, artifact, folder.path)
    return folder
