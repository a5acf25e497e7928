"""Search for cells and trials by label, part of a label, prefix of a key, or FILE:CELL:SEED."""

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

MAX_LISTED = 8
"""Maximum number of labels in a message."""


def find_trial(plan: Plan, name: str, seed: int | None = None) -> PlannedTrial:
    """Return the trial of a plan that matches a name.

    Args:
        plan: the plan.
        name: label of a cell, an unambiguous part of one, or a prefix of a trial's key of at least 6 characters.
        seed: the seed; None for the first seed of the grid. It is ignored if the name is a prefix of a key.

    Raises:
        ConfigError: no cell or several cells match, or the grid does not have the seed.
    """
    by_key = [planned for planned in plan.all_trials if re.fullmatch("[0-9a-f]{6,64}", name)]
    by_key = [planned for planned in by_key if planned.key.startswith(name)]
    if len(by_key) == 1:
        return by_key[0]
    label = _match_label([cell.label for cell in plan.grid.cells], name, str(plan.grid.path))
    trials = {planned.trial.seed: planned for planned in plan.trials if planned.cell.label == label}
    wanted = plan.grid.seeds[0] if seed is None else seed
    if wanted not in trials:
        listing = ", ".join(map(str, plan.grid.seeds))
        raise ConfigError(f"{plan.grid.path}: no seed {wanted}; the seeds are {listing}")
    return trials[wanted]


def _match_label(labels: Sequence[str], name: str, where: str) -> str:
    """Return the label that equals the name, else the only label that contains it."""
    found = [label for label in labels if label == name] or [label for label in labels if name.lower() in label.lower()]
    if len(found) == 1:
        return found[0]
    if found:
        raise ConfigError(f"{where}: '{name}' matches {len(found)} cells: {_join(found)}; give more of the label")
    close = get_close_matches(name, labels, n=MAX_LISTED, cutoff=0.0)
    raise ConfigError(f"{where}: no cell '{name}'; {nearest(name, close)}")


def _join(labels: Sequence[str]) -> str:
    return "; ".join(labels[:MAX_LISTED]) + (" and more" if len(labels) > MAX_LISTED else "")


def find_grid_file(*references: str) -> Path | None:
    """Return the grid file of the first reference that contains one.

    Args:
        references: references to records, as in `find_record`.
    """
    found = (_IN_A_FILE.fullmatch(reference) for reference in references)
    return next((Path(named[1]) for named in found if named is not None), None)


def find_record(lab: Lab, reference: str) -> Record:
    """Return the record of a trial.

    Args:
        lab: the lab that contains the run folders.
        reference: `FILE:CELL`, `FILE:CELL:SEED` or a prefix of the trial's key.

    Raises:
        ConfigError: the grid file does not contain the cell or the seed.
        RunError: no key or several keys match, or the trial has not ended.
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
