"""Check of a plan: every class needs pixels in the training split of its dataset."""

from __future__ import annotations

from fcnlab.config.dataset import Dataset
from fcnlab.data.inspection.absent_classes import check_absent_classes, load_absent_classes
from fcnlab.lab import Lab
from fcnlab.runner.plan import Plan


def find_remaining_datasets(plan: Plan) -> list[tuple[str, Dataset]]:
    """Return the different datasets of the remaining trials with their names, in a fixed order.

    Args:
        plan: the plan of a grid.
    """
    datasets: list[tuple[str, Dataset]] = []  # not a set: the fields of a dataset may be unhashable
    for planned in plan.remaining:
        found = (planned.trial.names["dataset"], planned.trial.dataset)
        if found not in datasets:
            datasets.append(found)
    return sorted(datasets, key=repr)


def check_class_presence(plan: Plan, lab: Lab) -> list[str]:
    """Check the datasets of the remaining trials, as far as their splits have been read before.

    Args:
        plan: the plan of a grid.
        lab: the lab that contains the data.

    Returns:
        A warning for each class without a pixel in another split.

    Raises:
        DataError: a class has no pixel in the training split, or a file is missing.
    """
    warnings = []
    for name, spec in find_remaining_datasets(plan):
        absent = load_absent_classes(lab.open_dataset(spec), spec.used_splits)
        lines = check_absent_classes(absent, spec.splits.train, f"dataset {name}")
        warnings += [f"dataset {name}: {line}" for line in lines]
    return warnings
