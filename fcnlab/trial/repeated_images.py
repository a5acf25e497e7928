"""Images on which a trial is evaluated although it, or a trial that it is initialized from, was trained on them.

Images are equal if their files have the same content, whatever their names and folders are. Samples that are not files,
such as generated scenes, are not compared.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from fcnlab.config.dataset import Dataset
from fcnlab.config.trial import Trial
from fcnlab.errors import DataError, RunError
from fcnlab.lab import Lab
from fcnlab.trial.find import read_trial
from fcnlab.trial.run_folder import RunFolder


class ImageDigests:
    """Digests of the images of datasets. Each dataset is read once."""

    def __init__(self, lab: Lab) -> None:
        self._lab = replace(lab)  # sees files that have changed since the given one was used
        self._known: dict[tuple[str, tuple[str, ...]], dict[str, dict[str, str]]] = {}

    def read(self, config: Dataset, splits: tuple[str, ...]) -> dict[str, dict[str, str]]:
        """Return the digest of each image by its id, by the name of the split.

        Args:
            config: configuration of the dataset.
            splits: names of the splits.

        Raises:
            DataError: the dataset is missing.
        """
        key = (repr(config), splits)
        if key not in self._known:
            self._known[key] = self._lab.open_dataset_once(config).image_digests(splits)
        return self._known[key]

    def read_training(self, trial: Trial) -> dict[str, str]:
        """Return the digests of the images that a trial was or will be trained on.

        Args:
            trial: configuration of the trial.

        Returns:
            The digest of each image by its id.

        Raises:
            DataError: the dataset is missing, or has changed since the trial was planned.
        """
        used = trial.dataset.used_splits
        if self._lab.open_dataset_once(trial.dataset).fingerprint(used) != trial.data:
            raise DataError(f"its dataset '{trial.names.get('dataset', trial.dataset.type)}' has changed")
        return self.read(trial.dataset, used).get(trial.dataset.splits.train, {})


def list_initial_trials(trial: Trial, lab: Lab, planned: Mapping[str, Trial]) -> list[Trial]:
    """Return the trials whose weights are the origin of those that a trial starts with, the latest first.

    Args:
        trial: the trial.
        lab: the lab with the run folders of earlier trials.
        planned: configurations of trials by key that may not have run yet.

    Raises:
        RunError: the configuration of an earlier trial cannot be read.
    """
    found: list[Trial] = []
    key = trial.init_from
    while key is not None:
        earlier = planned[key] if key in planned else read_trial(RunFolder(lab.find_runs(key), key))
        found.append(earlier)
        key = earlier.init_from
    return found


def find_equal_images(evaluated: Mapping[str, str], trained: Mapping[str, str]) -> dict[str, str]:
    """Find the evaluated images that are equal to a training image.

    Args:
        evaluated: digest of each evaluated image by its id.
        trained: digest of each training image by its id.

    Returns:
        The id of an equal training image by the id of the evaluated image.
    """
    ids = {digest: id_ for id_, digest in trained.items()}
    return {id_: ids[digest] for id_, digest in evaluated.items() if digest in ids}


def count_training_images(trial: Trial, config: Dataset, split: str, lab: Lab) -> int | None:
    """Count the images of a split that a finished trial, or one that it is initialized from, was trained on.

    Args:
        trial: configuration of the trial.
        config: configuration of the dataset of the split.
        split: name of the split.
        lab: the lab that contains the data and the run folders.

    Returns:
        The number; None if it is not known, because the samples are not files, or because the data or the
        configuration of one of these trials is missing or has changed.

    Raises:
        DataError: the dataset of the split is missing.
    """
    digests = ImageDigests(lab)
    evaluated = digests.read(config, (split,)).get(split)
    if evaluated is None:
        return None
    try:
        trained = [digests.read_training(each) for each in (trial, *list_initial_trials(trial, lab, {}))]
    except (DataError, RunError):
        return None
    seen = {digest for of_trial in trained for digest in of_trial.values()}
    return sum(digest in seen for digest in evaluated.values())
