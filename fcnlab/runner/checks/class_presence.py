"""Check of a plan: every class needs pixels in the training split of its dataset."""

from __future__ import annotations

from fcnlab.config.trial import Trial
from fcnlab.data.inspection.absent_classes import check_absent_classes, load_absent_classes
from fcnlab.lab import Lab
from fcnlab.runner.checks.trials import OpenedData
from fcnlab.runner.plan import Plan


def find_trials_by_dataset(plan: Plan) -> list[Trial]:
    """Return one of the remaining trials for each of their datasets, in a fixed order.

    Args:
        plan: the plan of a grid.
    """
    # By text: the fields of a dataset may be unhashable.
    trials = [planned.trial for planned in plan.remaining]
    by_dataset = {repr((trial.names["dataset"], trial.dataset)): trial for trial in trials}
    return [by_dataset[dataset] for dataset in sorted(by_dataset)]


def check_class_presence(plan: Plan, lab: Lab, data: OpenedData | None = None) -> list[str]:
    """Check the datasets of the remaining trials, as far as their splits have been read before.

    Args:
        plan: the plan of a grid.
        lab: the lab that contains the data.
        data: the datasets of the trials that are open already; None opens them.

    Returns:
        A warning for each class without a pixel in another split.

    Raises:
        DataError: a class has no pixel in the training split, or a file is missing.
    """
    warnings = []
    data = data or OpenedData(lab)
    for trial in find_trials_by_dataset(plan):
        name, spec = trial.names["dataset"], trial.dataset
        absent = load_absent_classes(data.dataset(trial), spec.used_splits)
        texts = check_absent_classes(absent, spec.splits.train, f"dataset {name}")
        warnings += [f"dataset {name}: {text}" for text in texts]
    return warnings
