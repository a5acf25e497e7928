"""The interface of trackers: they publish the trials of a grid while these run."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fcnlab.config.trial import Trial
from fcnlab.constants import CheckpointChoice
from fcnlab.lab import Lab
from fcnlab.trial.record import EpochRecord, Record
from fcnlab.trial.run_folder import RunFolder


@dataclass(frozen=True)
class TrackedGrid:
    """The grid whose trials a tracker publishes.

    Attributes:
        name: name of the grid.
        question: the question that it answers.
        file: its grid file, which need not exist.
        checkpoint: the epoch that the grid reports, `last` or `best`.
        command: command that runs it again from the folder of the lab.
        lab: the lab.
        display_names: display name of each cell by its label.
        is_complete: True if trials that the grid does not have any more are not current. False for the trials of
            `fcnlab train`, which are added one by one.
    """

    name: str
    question: str
    file: Path
    checkpoint: CheckpointChoice
    command: str
    lab: Lab
    display_names: Mapping[str, str] = field(default_factory=dict)
    is_complete: bool = True


@dataclass(frozen=True)
class TrackedTrial:
    """A trial that a tracker publishes.

    Attributes:
        trial: the trial.
        cell: label of its cell.
        name: name for readers: the display name of the cell, as in the report, and the seed.
        axes: value of each axis of the grid that is a field of a component.
        command: command that reproduces the trial from the folder of the lab.
        folder: its run folder.
        started: time at which it started, in seconds since 1970.
        restarts: number of times that it was started again from its first epoch, which discards its earlier epochs.
    """

    trial: Trial
    cell: str
    name: str
    axes: Mapping[str, str]
    command: str
    folder: RunFolder
    started: float
    restarts: int = 0

    @property
    def key(self) -> str:
        """Key of the trial."""
        return self.folder.key


class Tracker(ABC):
    """Publishes the trials of one grid.

    One driver of a grid at a time publishes, for all drivers. A driver can be killed at any time, and another one
    continues with a new tracker: a tracker finds out what it has published already, so that nothing is published twice.

    Each method raises `TrackingError` if it cannot write. Publishing then ends for this driver, trials continue, and
    the next `fcnlab grid run` or `fcnlab grid sync` publishes what is missing.

    Attributes:
        remarks: remarks for the user on what `start_grid` has found, one line per remark.
    """

    remarks: Sequence[str] = ()

    @abstractmethod
    def __init__(self, grid: TrackedGrid) -> None:
        """Open the tracker.

        Args:
            grid: the grid.

        Raises:
            TrackingError: the tracker cannot be opened.
        """

    @abstractmethod
    def start_grid(self, keys: Collection[str]) -> None:
        """Start to publish.

        Args:
            keys: keys of the trials that the grid has now.
        """

    @abstractmethod
    def is_published(self, record: Record) -> bool:
        """Return whether a record is published.

        Args:
            record: record of a trial.
        """

    @abstractmethod
    def start_trial(self, trial: TrackedTrial) -> None:
        """Begin a trial that has no published record, or continue one that was interrupted.

        It is called once per driver before any other method with this trial.

        Args:
            trial: the trial.
        """

    @abstractmethod
    def log_epochs(self, trial: TrackedTrial, epochs: Sequence[EpochRecord]) -> None:
        """Publish the epochs of a running trial that are not published yet.

        Args:
            trial: the trial.
            epochs: all epochs up to now.
        """

    @abstractmethod
    def log_record(self, trial: TrackedTrial, record: Record, *, samples: bool) -> None:
        """Publish the record of a trial that has ended.

        Args:
            trial: the trial.
            record: its record, also that of a failed trial.
            samples: whether to publish the predictions of the first images, which are many large files.
        """

    @abstractmethod
    def pause_trial(self, trial: TrackedTrial, *, pruned_after: int | None) -> None:
        """End a trial that has no record.

        Args:
            trial: the trial.
            pruned_after: epoch after which early stopping ended the trial; None if it was interrupted.
        """

    @abstractmethod
    def close(self, *, complete: bool) -> None:
        """End publishing.

        Args:
            complete: whether all trials of the grid have ended.
        """
