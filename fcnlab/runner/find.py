"""Cells and trials by what people call them: a label or a part of it, the beginning of a key, FILE:CELL:SEED."""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

from fcnlab.errors import ConfigError, RunError, nearest
from fcnlab.lab import Lab
from fcnlab.runner.plan import Plan, PlannedTrial, make_plan
from fcnlab.trial.find import find_run_folder
from fcnlab.trial.record import Record

_IN_A_FILE = re.compile(r"(.+?\.ya?ml):(.+?)(?::(\d+))?")

LISTED = 8
"""Labels that a message names at most."""


def find_trial(plan: Plan, name: str, seed: int | None = None) -> PlannedTrial:
    """The trial of a plan that a cell's label, an unambiguous part of one, or the beginning of a key names.

    Without a `seed` it is the cell's first; a key names its seed itself.

    Raises:
        ConfigError: it names no cell or several, or the grid has no such seed.
    """
    by_key = [planned for planned in plan.all_trials if re.fullmatch("[0-9a-f]{6,64}", name)]
    by_key = [planned for planned in by_key if planned.key.startswith(name)]
    if len(by_key) == 1:
        return by_key[0]
    label = _label([cell.label for cell in plan.grid.cells], name, str(plan.grid.path))
    trials = {planned.trial.seed: planned for planned in plan.trials if planned.cell.label == label}
    wanted = plan.grid.seeds[0] if seed is None else seed
    if wanted not in trials:
        listing = ", ".join(map(str, plan.grid.seeds))
        raise ConfigError(f"{plan.grid.path}: no seed {wanted}; it has {listing}")
    return trials[wanted]


def _label(labels: Sequence[str], name: str, where: str) -> str:
    """The label that is this, else the only one that holds this."""
    found = [label for label in labels if label == name] or [label for label in labels if name.lower() in label.lower()]
    if len(found) == 1:
        return found[0]
    if found:
        raise ConfigError(f"{where}: {len(found)} cells are called so: {_few(found)}; say more of the label")
    close = get_close_matches(name, labels, n=LISTED, cutoff=0.0)
    raise ConfigError(f"{where}: no cell '{name}'; {nearest(name, close)}")


def _few(labels: Sequence[str]) -> str:
    return "; ".join(labels[:LISTED]) + (" and more" if len(labels) > LISTED else "")


def file_in(*references: str) -> Path | None:
    """The first grid file that references name, if any does."""
    found = (_IN_A_FILE.fullmatch(reference) for reference in references)
    return next((Path(named[1]) for named in found if named is not None), None)


def find_record(lab: Lab, reference: str) -> Record:
    """The record that FILE:CELL, FILE:CELL:SEED or the beginning of a trial's key names.

    Raises:
        ConfigError: there is no such cell or seed in the file.
        RunError: no trial or several have such a key, or the trial has not ended.
    """
    named = _IN_A_FILE.fullmatch(reference)
    if named is not None:
        file, cell, seed = named.groups()
        planned = find_trial(make_plan(lab.load_grid(Path(file)), lab), cell, int(seed) if seed is not None else None)
        folder = planned.folder
    else:
        folder = find_run_folder(reference, lab)
    record = folder.read()
    if record is None:
        raise RunError(f"{reference}: this trial has not ended; {folder.path} has no record")
    return record
