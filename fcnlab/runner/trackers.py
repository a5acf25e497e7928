"""The trackers of a grid: the built-in ones and those of extensions, by the names that the lab has selected."""

from __future__ import annotations

from collections.abc import Callable, Collection
from shlex import quote
from typing import get_args

from fcnlab.config.grid.grid import Grid
from fcnlab.config.grid.name import path_in_lab
from fcnlab.errors import ConfigError, TrackingError
from fcnlab.extensions import fcnlab_command
from fcnlab.lab import Lab
from fcnlab.runner.grid_state import note_experiment
from fcnlab.settings import TrackerName
from fcnlab.tracking import store, tensorboard
from fcnlab.tracking.base import TrackedGrid, TrackedTrial, Tracker
from fcnlab.tracking.tensorboard import TensorboardTracker
from fcnlab.tracking.tracker import MlflowTracker
from fcnlab.trial.record import Record


def track_grid(grid: Grid, lab: Lab) -> TrackedGrid:
    """Describe a grid for its trackers.

    Args:
        grid: the grid.
        lab: its lab.
    """
    command = grid.command or f"{fcnlab_command(*grid.cells)} grid run {quote(path_in_lab(grid.path))}"
    return TrackedGrid(grid.name, grid.file.question, grid.path, grid.file.checkpoint, command, lab)


def check_trackers(lab: Lab) -> None:
    """Check the selected trackers before anything runs. MLflow need not be installed: publishing is deferred then.

    Args:
        lab: the lab, which selects the trackers.

    Raises:
        ConfigError: there is no such tracker, its class cannot be imported, or TensorBoard is not installed.
    """
    for name in lab.trackers:
        if name not in get_args(TrackerName):
            lab.extensions.load("tracker", name, Tracker)  # type: ignore[type-abstract]
    if "tensorboard" in lab.trackers and not tensorboard.is_installed():
        raise ConfigError("tracker tensorboard: not installed; install it with: pip install 'fcnlab[tensorboard]'")


def _create_tracker(name: str, grid: TrackedGrid) -> Tracker:
    if name == "mlflow":
        return MlflowTracker(grid)
    if name == "tensorboard":
        return TensorboardTracker(grid)
    return grid.lab.extensions.load("tracker", name, Tracker)(grid)  # type: ignore[type-abstract]


class GuardedTracker:
    """A tracker that is not used any more after its first error, so that trials continue.

    Attributes:
        postponed: why publishing is deferred; None if it is not.
    """

    def __init__(self, name: str, on_error: Callable[[str], None]) -> None:
        """Select a tracker; `start` opens it.

        Args:
            name: name of the tracker.
            on_error: called with the reason when publishing is deferred.
        """
        self.postponed: str | None = None
        self._name = name
        self._on_error = on_error
        self._tracker: Tracker | None = None
        self._started: dict[str, TrackedTrial] = {}

    def start(self, grid: Grid, lab: Lab, keys: Collection[str]) -> None:
        """Open the tracker and start to publish.

        Args:
            grid: the grid.
            lab: the lab.
            keys: keys of the trials that the grid has now.
        """
        if self._name == "mlflow" and not store.is_installed():
            file = grid.path
            sync = f"{fcnlab_command(*grid.cells)} grid sync {quote(str(file))}"
            self._postpone("MLflow is not installed" + (f"; run `{sync}` where it is" if file.is_file() else ""))
            return
        self._guard(lambda: self._open(grid, lab, keys))

    def _open(self, grid: Grid, lab: Lab, keys: Collection[str]) -> None:
        tracker = _create_tracker(self._name, track_grid(grid, lab))
        tracker.start_grid(keys)
        if isinstance(tracker, MlflowTracker):
            note_experiment(grid, lab, tracker.experiment_id)
        self._tracker = tracker

    def is_published(self, record: Record) -> bool:
        """Return whether a record need not be published to this tracker, or cannot be.

        Args:
            record: record of a trial.
        """
        found = True

        def ask(tracker: Tracker) -> None:
            nonlocal found
            found = tracker.is_published(record)

        self.call(ask)
        return found

    def call(self, function: Callable[[Tracker], object]) -> None:
        """Call a function with the tracker, unless publishing is deferred.

        Args:
            function: function of the tracker.
        """
        tracker = self._tracker
        if tracker is not None:
            self._guard(lambda: function(tracker))

    def call_started(self, trial: TrackedTrial, function: Callable[[Tracker], object]) -> None:
        """Start a trial in the tracker if it is not started there, and call a function with the tracker.

        Args:
            trial: the trial.
            function: function of the tracker.
        """

        def start_and_call(tracker: Tracker) -> None:
            if self._started.get(trial.key) is not trial:
                tracker.start_trial(trial)
                self._started[trial.key] = trial
            function(tracker)

        self.call(start_and_call)

    def _guard(self, function: Callable[[], object]) -> None:
        try:
            function()
        except TrackingError as error:
            self._postpone(str(error))
        except Exception as error:
            if self._name in get_args(TrackerName):
                raise
            self._postpone(f"tracker {self._name}: {type(error).__name__}: {error}")  # the code of an extension

    def _postpone(self, why: str) -> None:
        self._tracker, self.postponed = None, why
        self._on_error(why)
