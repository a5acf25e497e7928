"""The trackers of a grid: the built-in ones and those of extensions, by the names that the lab has selected."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path
from shlex import quote
from typing import get_args

from fcnlab.config.grid.grid import Grid
from fcnlab.config.grid.name import path_in_lab
from fcnlab.errors import ConfigError, TrackingError
from fcnlab.extensions import fcnlab_command
from fcnlab.lab import Lab
from fcnlab.paths import is_file
from fcnlab.runner.commands import format_grid_command
from fcnlab.runner.grid_state import SINGLE_TRIALS, note_experiment
from fcnlab.settings import TrackerName
from fcnlab.tracking import store, tensorboard
from fcnlab.tracking.base import TrackedGrid, Tracker
from fcnlab.tracking.tensorboard import TensorboardTracker
from fcnlab.tracking.tracker import MlflowTracker


def track_grid(grid: Grid, lab: Lab) -> TrackedGrid:
    """Describe a grid for its trackers.

    Args:
        grid: the grid.
        lab: its lab.
    """
    command = grid.command or f"{fcnlab_command(*grid.cells)} grid run {quote(path_in_lab(grid.path))}"
    is_single = grid.name == SINGLE_TRIALS
    return TrackedGrid(
        grid.name,
        grid.file.question,
        Path(os.devnull) if is_single else grid.path,
        grid.file.checkpoint,
        command,
        lab,
        grid.display_names,
        is_complete=not is_single,
    )


def check_trackers(lab: Lab) -> None:
    """Check the selected trackers before anything runs. MLflow need not be installed: publishing is deferred then.

    Args:
        lab: the lab, which selects the trackers.

    Raises:
        ConfigError: there is no such tracker, its class cannot be imported, or TensorBoard is not installed.
        TrackingError: MLflow cannot open a SQLite file with the path of the lab's store.
    """
    for name in lab.trackers:
        if name not in get_args(TrackerName):
            lab.extensions.load("tracker", name, Tracker)  # type: ignore[type-abstract]
    if "tensorboard" in lab.trackers and not tensorboard.is_installed():
        raise ConfigError("tracker tensorboard: not installed; install it with: pip install 'fcnlab[tensorboard]'")
    if "mlflow" in lab.trackers and store.is_installed():
        store.check_database(lab.tracking_uri)


def open_selected_tracker(name: str, grid: Grid, lab: Lab, keys: Collection[str]) -> Tracker:
    """Open a tracker and start to publish.

    Args:
        name: name of the tracker.
        grid: the grid.
        lab: the lab.
        keys: keys of the trials that the grid has now.

    Raises:
        TrackingError: the tracker cannot be opened, or is not installed.
    """
    if name == "mlflow" and not store.is_installed():
        sync = format_grid_command("grid sync", grid, lab)
        where = f"; run `{sync}` where it is" if is_file(grid.path) else ""
        raise TrackingError(f"MLflow is not installed{where}")
    tracker = _create_tracker(name, track_grid(grid, lab))
    tracker.start_grid(keys)
    if isinstance(tracker, MlflowTracker):
        note_experiment(grid, lab, tracker.experiment_id)
    return tracker


def _create_tracker(name: str, grid: TrackedGrid) -> Tracker:
    if name == "mlflow":
        return MlflowTracker(grid)
    if name == "tensorboard":
        return TensorboardTracker(grid)
    return grid.lab.extensions.load("tracker", name, Tracker)(grid)  # type: ignore[type-abstract]
