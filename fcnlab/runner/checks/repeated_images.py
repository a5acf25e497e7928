"""Check of a plan: no trial is evaluated on images on which it, or a trial it is initialized from, was trained."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from fcnlab.config.trial import Trial
from fcnlab.console import format_count
from fcnlab.constants import KEY_DIGITS
from fcnlab.data.json_cache import cache_file, read_json, write_json
from fcnlab.errors import ConfigError, DataError, RunError, list_some
from fcnlab.lab import Lab
from fcnlab.runner.plan import Plan, PlannedTrial
from fcnlab.trial.repeated_images import ImageDigests, find_equal_images, list_initial_trials

SHOWN = 3
"""Maximum number of trials that one line lists."""


@dataclass
class RepeatedImages:
    """Images on which trials are evaluated although they were trained on equal images.

    Attributes:
        dataset: name of the dataset.
        split: name of the evaluated split.
        training_split: name of the split that contains the equal images.
        is_reported: True if the metrics of the evaluated split are those that the tables contain.
        cell: label of the cell that is initialized from trials that were trained on the equal images; empty if they are
            in the training split of the dataset itself.
        initial: keys of these trials.
        ids: ids of the evaluated images, with those of the equal training images.
    """

    dataset: str
    split: str
    training_split: str
    is_reported: bool
    cell: str = ""
    initial: dict[str, None] = field(default_factory=dict)
    ids: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        id_, equal = next(iter(self.ids.items()))
        example = id_ if id_ == equal else f"{id_}, equal to {equal}"
        return f"{format_count(len(self.ids), 'image')} of '{self.split}' of {self.dataset} ({example})"


class Comparison(NamedTuple):
    """Result of the comparison of evaluated images with training images.

    Attributes:
        found: the images on which trials are evaluated although they were trained on equal images.
        unknown: the reasons for which trials could not be compared with those that they are initialized from.
        missing: names of the datasets whose images could not be compared, because their files are missing.
    """

    found: list[RepeatedImages]
    unknown: list[str]
    missing: list[str]


def find_repeated_images(plan: Plan, trials: Iterable[PlannedTrial], lab: Lab) -> Comparison:
    """Find the images on which trials are evaluated although they were trained on equal images.

    Args:
        plan: the plan of a grid.
        trials: the trials of the plan that are compared.
        lab: the lab that contains the data and the run folders.

    Returns:
        The images, and what could not be compared.

    Raises:
        DataError: the dataset of a trial is missing, and recorded fingerprints do not replace missing ones in the plan.
    """
    comparison = _Comparison(plan, lab)
    found: dict[tuple[str, str, str], RepeatedImages] = {}
    for planned in trials:
        trial, name = planned.trial, planned.trial.names["dataset"]
        for earlier in (trial, *comparison.list_initial(planned)):
            cell = planned.cell.label if earlier is not trial else ""
            for split, ids in comparison.compare(planned, earlier).items():
                new = RepeatedImages(
                    name, split, earlier.dataset.splits.train, split == trial.dataset.evaluated_splits[-1], cell
                )
                images = found.setdefault((name, split, cell), new)
                images.ids |= ids
                images.initial |= {earlier.key: None} if cell else {}
    return Comparison(list(found.values()), list(comparison.unknown), list(comparison.missing))


class _Comparison:
    """Compares the images of trials. Trials of the same data are compared once."""

    def __init__(self, plan: Plan, lab: Lab) -> None:
        self._allows_missing = plan.missing_inputs is not None
        self._planned = {planned.key: planned.trial for planned in plan.all_trials}
        self._lab = lab
        self._digests = ImageDigests(lab)
        self._known: dict[Path, dict[str, dict[str, str]]] = {}
        self.unknown: dict[str, None] = {}
        self.missing: dict[str, None] = {}

    def list_initial(self, planned: PlannedTrial) -> list[Trial]:
        """Return the trials from which a trial is initialized, also indirectly."""
        try:
            return list_initial_trials(planned.trial, self._lab, self._planned)
        except RunError as error:  # it was run in another lab
            self.unknown[f"cell '{planned.cell.label}': {error}"] = None
            return []

    def compare(self, planned: PlannedTrial, earlier: Trial) -> dict[str, dict[str, str]]:
        """Return the evaluated images that are equal to training images of an earlier trial, or its own, by split."""
        trial = planned.trial
        splits = [split for split in trial.dataset.evaluated_splits if split != trial.dataset.splits.train]
        # The fingerprints represent the ids and contents of all files.
        file = cache_file("repeated", [trial.data, splits, earlier.data, earlier.dataset.splits.train])
        if file not in self._known:
            try:
                self._known[file] = self._read_or_compare(file, trial, splits, earlier)
            except DataError as error:
                if earlier is not trial:
                    self.unknown[f"cell '{planned.cell.label}': trial {earlier.key[:KEY_DIGITS]}: {error}"] = None
                elif self._allows_missing:
                    self.missing[trial.names["dataset"]] = None
                else:
                    raise
                self._known[file] = {}
        return {split: ids for split, ids in self._known[file].items() if ids}

    def _read_or_compare(
        self, file: Path, trial: Trial, splits: list[str], earlier: Trial
    ) -> dict[str, dict[str, str]]:
        """Return the result of an earlier command, or compare the files and keep the result."""
        kept = read_json(file)
        if kept.keys() == {*splits}:
            return kept
        trained = self._digests.read_training(earlier)
        evaluated = self._digests.read(trial.dataset, trial.dataset.used_splits)
        equal = {split: find_equal_images(evaluated.get(split, {}), trained) for split in splits}
        write_json(file, equal)
        return equal


def check_repeated_images(plan: Plan, lab: Lab) -> list[str]:
    """Check that no remaining trial is evaluated on images on which a trial it is initialized from was trained.

    Args:
        plan: the plan of a grid.
        lab: the lab that contains the data and the run folders.

    Returns:
        A warning for each split with images that are also in the training split, or of which only the validation
        metrics are too high, and for each cell that could not be compared.

    Raises:
        ConfigError: a trial from which a cell is initialized was trained on images of the reported split of the cell.
        DataError: a dataset is missing.
    """
    found, unknown, _ = find_repeated_images(plan, plan.remaining, lab)
    errors = [
        f"{plan.grid.path}: {_describe_initial(images)}, so the metrics would be too high; use a trial that was "
        "trained on other images"
        for images in found
        if images.cell and images.is_reported
    ]
    if errors:
        raise ConfigError("\n".join(errors))
    return [
        *(
            f"{_describe_initial(images)}, so metrics on '{images.split}' will be too high"
            if images.cell
            else f"also in '{images.training_split}': {images}, so metrics on '{images.split}' will be too high; keep "
            "each image in one split"
            for images in found
        ),
        *(f"init_from: the images of the initial trial were not compared: {reason}" for reason in unknown),
    ]


def _describe_initial(images: RepeatedImages) -> str:
    keys = [key[:KEY_DIGITS] for key in images.initial]
    trials = f"the trial{'s' * (len(keys) > 1)} {list_some(keys, SHOWN)} {'was' if len(keys) == 1 else 'were'}"
    return f"cell '{images.cell}': init_from: {trials} trained on {images}"
