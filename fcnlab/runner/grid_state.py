"""State of a grid in the lab: the file that its results belong to, and its MLflow experiment."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from fcnlab.atomic_file import write_atomically
from fcnlab.config.grid.from_dict import write_grid_file
from fcnlab.config.grid.grid import Grid
from fcnlab.errors import ConfigError, RunError
from fcnlab.lab import Lab
from fcnlab.paths import is_file, resolve_path
from fcnlab.redaction import redact


def state_folder(grid: Grid, lab: Lab) -> Path:
    """Return the folder with the state of a grid that drivers share.

    Args:
        grid: the grid.
        lab: the lab of the grid.
    """
    return lab.state / "grids" / grid.name


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
    if not is_file(file):  # the trials of `fcnlab train` have none
        return
    note = state_folder(grid, lab) / "file"
    earlier = None
    with suppress(FileNotFoundError, ValueError):  # it does not exist, or a power cut has left zeros
        earlier = resolve_path(lab.root / os.fsdecode(note.read_bytes()))
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
    write_atomically(state_folder(grid, lab) / "experiment", lambda file: file.write(text.encode()))


def noted_experiments(lab: Lab) -> dict[str, str]:
    """Return the ids of the experiments of grids that were run from a lab with its current store, by grid name.

    Args:
        lab: the lab.
    """
    folder = lab.state / "grids"
    notes = {
        file.parent.relative_to(folder).as_posix(): file.read_text(encoding="utf-8").splitlines()
        for file in folder.glob("**/experiment")
        if is_file(file)
    }
    return {name: lines[1] for name, lines in sorted(notes.items()) if lines[:-1] == [_describe_store(lab)]}


def _describe_store(lab: Lab) -> str:
    """Return the URI of the lab's store without a password; for its own store a text without a path, so it can move."""
    return "own store" if lab.tracking_uri == lab.own_tracking_uri else redact(lab.tracking_uri)
