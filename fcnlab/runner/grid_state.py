"""State of a grid in the lab: the file that its results belong to, its MLflow experiment, and the lease for publishing.

    .fcnlab/grids/<grid>/.state/file          path of the grid file
    .fcnlab/grids/<grid>/.state/experiment    the store, and the id of the experiment in it
    .fcnlab/grids/<grid>/.state/lease.<n>     lease of the driver that publishes the records

The names of grids are paths whose parts do not begin with a dot, so that no grid has one of these folders.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from fcnlab.atomic_file import read_shared, write_atomically
from fcnlab.config.grid.from_dict import write_grid_file
from fcnlab.config.grid.grid import Grid
from fcnlab.errors import ConfigError, RunError
from fcnlab.lab import Lab
from fcnlab.paths import is_file, resolve_path
from fcnlab.redaction import redact

if TYPE_CHECKING:
    from fcnlab.runner.plan import Plan


SINGLE_TRIALS = ".train"
"""Name of the grid of the single trials of `fcnlab train`; a grid with a file cannot have it."""

_STATE = ".state"
_FILE = "file"
_EXPERIMENT = "experiment"


def state_folder(grid: Grid, lab: Lab) -> Path:
    """Return the folder with the state of a grid that drivers share.

    Args:
        grid: the grid.
        lab: the lab of the grid.
    """
    return lab.state / "grids" / grid.name / _STATE


def publishing_folder(plan: Plan, lab: Lab) -> Path:
    """Return the folder that is leased by the driver that publishes the records of a plan.

    Single trials have one folder each: none of them waits for another.

    Args:
        plan: the plan of the grid.
        lab: the lab of the grid.
    """
    folder = state_folder(plan.grid, lab)
    return folder / plan.trials[0].key if plan.grid.name == SINGLE_TRIALS else folder


def claim_results(grid: Grid, lab: Lab) -> None:
    """Claim `results/<grid>/` and the MLflow experiment of a grid for its file, before anything is written to them.

    The file of a grid that was created from a dict is written.

    Args:
        grid: the grid.
        lab: the lab of the grid.

    Raises:
        ConfigError: they belong to another file with the same name.
        RunError: the lab cannot be written.
    """
    try:
        write_grid_file(grid)
    except OSError as error:
        raise RunError(f"{grid.path}: cannot be written: {error.strerror}") from None
    file = resolve_path(grid.path)
    if grid.name == SINGLE_TRIALS or not is_file(file):
        return
    note = state_folder(grid, lab) / _FILE
    earlier = None
    with suppress(FileNotFoundError, ValueError):  # it does not exist, or a power cut has left zeros
        earlier = resolve_path(lab.root / os.fsdecode(read_shared(note)))
    if earlier == file:
        return
    if earlier is not None and is_file(earlier):
        raise ConfigError(
            f"{grid.path}: results/{grid.name} and the MLflow experiment fcnlab/{grid.name} belong to {earlier}; "
            "rename one of the two files"
        )
    path = file.relative_to(lab.root) if file.is_relative_to(lab.root) else file  # relative, for copies of the lab
    try:
        note.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(note, lambda opened: opened.write(os.fsencode(path)))
    except OSError as error:
        raise RunError(f"{note}: cannot be written: {error.strerror}; choose another lab folder with --lab") from None


def note_experiment(grid: Grid, lab: Lab, experiment: str) -> None:
    """Save the id of a grid's experiment in the lab, so that its address is known without a request to the store.

    Args:
        grid: the grid.
        lab: the lab.
        experiment: id of the MLflow experiment.
    """
    text = f"{_describe_store(lab)}\n{experiment}\n"
    write_atomically(state_folder(grid, lab) / _EXPERIMENT, lambda file: file.write(text.encode()))


def noted_experiments(lab: Lab) -> dict[str, str]:
    """Return the ids of the experiments of grids that were run from a lab with its current store, by grid name.

    Args:
        lab: the lab.
    """
    folder = lab.state / "grids"
    notes = {
        file.parent.parent.relative_to(folder).as_posix(): read_shared(file).decode().splitlines()
        for file in folder.glob(f"**/{_STATE}/{_EXPERIMENT}")
    }
    return {name: lines[1] for name, lines in sorted(notes.items()) if lines[:-1] == [_describe_store(lab)]}


def _describe_store(lab: Lab) -> str:
    """Return the URI of the lab's store without a password; for its own store a text without a path, so it can move."""
    return "own store" if lab.tracking_uri == lab.own_tracking_uri else redact(lab.tracking_uri)
