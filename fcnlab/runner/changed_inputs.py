"""Remarks about remaining trials that have finished before with other inputs, such as other images or classes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from pydantic import ValidationError

from fcnlab.atomic_file import read_shared
from fcnlab.config.dataset import Dataset
from fcnlab.config.trial import Trial, canonical
from fcnlab.console import format_count
from fcnlab.lab import Lab
from fcnlab.paths import is_file
from fcnlab.runner.inputs import has_unrecorded_inputs
from fcnlab.runner.plan import Plan, list_other_folders
from fcnlab.trial.run_folder import RunFolder

MAX_FOLDERS = 1000
"""Maximum number of run folders of the lab that are searched."""


def describe_changed_inputs(plan: Plan, lab: Lab) -> list[str]:
    """Describe the remaining trials of a plan that have finished with another dataset, weights file or code.

    Args:
        plan: the plan.
        lab: the lab with the run folders.

    Returns:
        One line for each combination of inputs that differ.
    """
    to_do = [
        planned
        for planned in plan.all_trials
        if planned.state == "to do" and not has_unrecorded_inputs(planned.trial)  # nothing is known of the others
    ]
    if not to_do:
        return []
    others = list(_iterate_other_trials(plan, lab))
    trials = {folder.key: trial for folder, trial in others}
    trials |= {planned.key: planned.trial for planned in plan.all_trials}
    earlier: dict[str, list[tuple[RunFolder, Trial]]] = {}
    for folder, trial in others:
        earlier.setdefault(_encode_configuration(trial, trials), []).append((folder, trial))
    changes: Counter[str] = Counter()
    for planned in to_do:
        candidates = earlier.get(_encode_configuration(planned.trial, trials), [])
        now = planned.trial.dataset
        # Those with an equal dataset come first: others may be of a grid that overrides fields of the dataset.
        for folder, trial in sorted(candidates, key=lambda one: len(_list_changed_fields(one[1].dataset, now))):
            change = _describe_change(folder, trial, planned.trial)
            if change and (record := folder.read()) is not None and record.status == "finished":
                changes[change] += 1
                break
    return [
        f"{format_count(number, 'trial')} to do {'has' if number == 1 else 'have'} finished in this lab with {change}"
        for change, number in changes.items()
    ]


def _iterate_other_trials(plan: Plan, lab: Lab) -> Iterator[tuple[RunFolder, Trial]]:
    """Yield the trials of the latest run folders that are not in the plan, where this version can read them."""
    for folder in list_other_folders(plan, lab, MAX_FOLDERS):
        if not is_file(folder.trial):
            continue
        try:
            yield folder, Trial.model_validate_json(read_shared(folder.trial))
        except (OSError, ValidationError):
            continue


def _encode_configuration(trial: Trial, trials: Mapping[str, Trial]) -> str:
    """Return the content of the key of a trial without the inputs that only a fingerprint represents.

    The dataset is represented by its name. The trial that it is initialized from, if it is among `trials`, is
    represented by its content too.
    """
    content = trial.identity() | {"dataset": trial.names.get("dataset")}
    for name in ("data", "weights", "extensions"):
        content.pop(name, None)
    if trial.init_from is not None and trial.init_from in trials:
        content["init_from"] = _encode_configuration(trials[trial.init_from], trials)
    return canonical(content)


def _describe_change(folder: RunFolder, before: Trial, now: Trial) -> str:
    """Describe the inputs of a trial that have changed; empty if the backbones have other names."""
    if before.names.get("backbone") != now.names.get("backbone"):
        return ""
    changed = []
    if fields := _list_changed_fields(before.dataset, now.dataset):  # the fingerprint of the data depends on them
        changed.append(f"other {' and '.join(fields)} of dataset {now.names['dataset']}")
    elif before.data != now.data:
        changed.append(f"other images or labels of dataset {now.names['dataset']}")
    if before.weights != now.weights:
        changed.append(f"another weights file of backbone {now.names['backbone']}")
    changed += [
        f"other code of the {kind}" for kind, code in now.extensions.items() if before.extensions.get(kind) != code
    ]
    if not changed and before.init_from != now.init_from:
        changed.append("other inputs of the trial that it is initialized from")
    if not changed and before.key != folder.key:
        changed.append("an earlier version of fcnlab, whose training computes other values")
    return " and ".join(changed)


def _list_changed_fields(before: Dataset, now: Dataset) -> list[str]:
    """Return the names of the fields in which two datasets differ, without those that do not enter a key."""
    if before == now:
        return []
    if before.type != now.type:
        return ["type"]
    old, new = before.content(), now.content()
    return [name for name in dict.fromkeys([*old, *new]) if name != "folder" and old.get(name) != new.get(name)]
