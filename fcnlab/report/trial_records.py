"""Records and per-image counts of the finished trials of a grid."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from fcnlab.constants import CheckpointChoice
from fcnlab.errors import RunError
from fcnlab.metrics.summary import Counts
from fcnlab.paths import is_file
from fcnlab.tracking.tracker import MlflowTracker
from fcnlab.trial.record import Record
from fcnlab.trial.run_folder import RunFolder


@dataclass(frozen=True)
class TrialRecords:
    """Run folders and records of the finished trials of a grid.

    Attributes:
        folders: cell label -> seed -> run folder.
        by_cell: cell label -> seed -> record.
        checkpoint: the epoch that the grid reports, `last` or `best`.
    """

    folders: dict[str, dict[int, RunFolder]]
    by_cell: dict[str, dict[int, Record]]
    checkpoint: CheckpointChoice

    def counts(self, cell: str) -> SeedCounts:
        """Return the counts of a cell's trials on the reported split, which are read on access.

        Args:
            cell: label of the cell.
        """
        existing = {seed: folder for seed, folder in self.folders.get(cell, {}).items() if is_file(folder.counts)}
        return SeedCounts({seed: (folder, self._array_name(cell, seed)) for seed, folder in existing.items()})

    def _array_name(self, cell: str, seed: int) -> str:
        """Return the name of the counts of the reported split in a trial's file."""
        return f"{self.by_cell[cell][seed].report_split}_{self.checkpoint}"

    def ids(self, cell: str, seed: int) -> tuple[str, ...]:
        """Return the ids of the images of the reported split, in the order of the counts.

        Args:
            cell: label of the cell.
            seed: seed of the trial.
        """
        split = self.by_cell[cell][seed].report_split
        return tuple(map(str, read_array(self.folders[cell][seed], f"{split}_ids")))


def find_missing_counts(cells: pd.DataFrame, records: TrialRecords) -> dict[str, int]:
    """Return the number of finished trials without counts by the label of their cell, for the cells that have any.

    Args:
        cells: frame with one row per cell.
        records: records of the finished trials.
    """
    finished = zip(map(str, cells["cell"]), cells["n"], strict=True)
    missing = {cell: int(number) - len(records.counts(cell)) for cell, number in finished}
    return {cell: number for cell, number in missing.items() if number}


class SeedCounts(Mapping[int, Counts]):
    """Mapping from seed to counts [images, num_classes, 3], read on access since a large grid would fill the memory."""

    def __init__(self, sources: Mapping[int, tuple[RunFolder, str]]) -> None:
        self._sources = sources

    def __getitem__(self, seed: int) -> Counts:
        return read_array(*self._sources[seed])

    def __contains__(self, seed: object) -> bool:
        return seed in self._sources  # that of Mapping reads the counts

    def __iter__(self) -> Iterator[int]:
        return iter(self._sources)

    def __len__(self) -> int:
        return len(self._sources)


def read_array(folder: RunFolder, name: str) -> Counts:
    """Read an array of a trial's counts.

    Args:
        folder: run folder of the trial.
        name: name of the array.

    Raises:
        RunError: the file is corrupt or has no such array.
    """
    try:
        with np.load(folder.counts) as arrays:
            return arrays[name]
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise RunError(f"{folder.counts}: no counts '{name}' can be read from it: {error}") from None


def load_records(
    trials: pd.DataFrame, runs: Path, tracker: MlflowTracker | None, cache: Path, checkpoint: CheckpointChoice
) -> TrialRecords:
    """Load the records of the finished trials of a frame.

    A trial that failed here and has finished elsewhere is downloaded, too. Trials whose finished record is found in
    neither place are left out.

    Args:
        trials: frame with one row per trial.
        runs: folder with the run folders.
        tracker: source of the trials that were run elsewhere; None for none.
        cache: folder for the downloads from the tracker, with the layout of `runs`.
        checkpoint: the epoch that the grid reports.
    """
    folders: dict[str, dict[int, RunFolder]] = {}
    by_cell: dict[str, dict[int, Record]] = {}
    finished = trials[trials["status"] == "finished"]
    for cell, seed, key, run_id in finished[["cell", "seed", "key", "run_id"]].itertuples(index=False):
        folder = RunFolder(runs, key)
        record = _read_finished(folder)
        if record is None and tracker is not None:
            folder = _download(RunFolder(cache, key), run_id, tracker)
            record = _read_finished(folder)
        if record is not None:
            folders.setdefault(str(cell), {})[int(seed)] = folder
            by_cell.setdefault(str(cell), {})[int(seed)] = record
    return TrialRecords(folders, by_cell, checkpoint)


def _read_finished(folder: RunFolder) -> Record | None:
    """Return the record of a trial that has finished, or None."""
    record = folder.read()
    return record if record is not None and record.status == "finished" else None


def _download(folder: RunFolder, run_id: str, tracker: MlflowTracker) -> RunFolder:
    """Download a trial's files from the tracker; the record comes last and marks a complete download."""
    if _read_finished(folder) is None:
        folder.create()
        for artifact in ("samples", folder.counts.name, folder.record.name):
            tracker.download_artifact(run_id, artifact, folder.path)
    return folder
