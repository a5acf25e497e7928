"""Fingerprints of datasets and weights files that the trials of a lab have recorded."""

from __future__ import annotations

import json
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from fcnlab.atomic_file import read_shared
from fcnlab.config.dataset import AnyDataset, Dataset
from fcnlab.config.grid.cell import NOT_DATA
from fcnlab.config.trial import canonical
from fcnlab.paths import read_time
from fcnlab.trial.run_folder import RunFolder
from fcnlab.trial.storage.quarantine import list_keys

_DATASET: TypeAdapter[Dataset] = TypeAdapter(AnyDataset)

_Fingerprints = dict[str, dict[str, list[RunFolder]]]
"""Run folders by the identity of an input and by its fingerprint."""


class RecordedInputs:
    """The fingerprints in the configurations of trials, which are read on the first access."""

    def __init__(self, runs: Path) -> None:
        """Refer to the trials of a lab.

        Args:
            runs: folder of the run folders.
        """
        self._runs = runs

    def find_data(self, dataset: Dataset) -> str | None:
        """Return the fingerprint of the data of the latest trial with an equal dataset; None if there is no such trial.

        Descriptions, colors and nominal sizes of the datasets need not be equal.

        Args:
            dataset: configuration of the dataset.
        """
        return _find_latest(self._fingerprints[0], _identify(dataset))

    def find_weights(self, name: str) -> str | None:
        """Return the fingerprint of the weights file of the latest trial with a file of this name; None without one.

        Args:
            name: name of the file in the configuration of a backbone.
        """
        return _find_latest(self._fingerprints[1], name)

    @cached_property
    def _fingerprints(self) -> tuple[_Fingerprints, _Fingerprints]:
        """The fingerprints by dataset, and by the name of a weights file."""
        by_dataset: _Fingerprints = {}
        by_weights: _Fingerprints = {}
        identities: dict[str, str | None] = {}
        for key in list_keys(self._runs):
            folder = RunFolder(self._runs, key)
            trial = _read_json(folder.trial)
            dataset, data = trial.get("dataset"), trial.get("data")
            text = canonical(dataset)  # many trials have the same dataset, which is validated once
            if text not in identities:
                identities[text] = _try_identify(dataset)
            identity = identities[text]
            if identity is not None and isinstance(data, str):
                by_dataset.setdefault(identity, {}).setdefault(data, []).append(folder)
            weights = trial.get("weights")
            if isinstance(weights, str):
                name = str(trial["variant"]["backbone"]["weights"])
                by_weights.setdefault(name, {}).setdefault(weights, []).append(folder)
        return by_dataset, by_weights


def _identify(dataset: Dataset) -> str:
    """Return the fields of a dataset that determine its images and labels, as text."""
    return canonical(dataset.model_dump(mode="json", exclude=set(NOT_DATA)))


def _try_identify(dataset: object) -> str | None:
    """Return the identity of a recorded dataset; None if this version of fcnlab cannot read it."""
    try:
        return _identify(_DATASET.validate_python(dataset))
    except ValidationError:
        return None


def _find_latest(fingerprints: _Fingerprints, identity: str) -> str | None:
    found = fingerprints.get(identity, {})
    if len(found) > 1:  # the files have changed between trials
        return max(found, key=lambda fingerprint: max(map(_read_end, found[fingerprint])))
    return next(iter(found), None)


def _read_end(folder: RunFolder) -> float:
    """Return when a trial ended, or when it was last started, in seconds since 1970.

    The time in the record is used because a copy of the folder need not have the times of its files.
    """
    try:
        return datetime.fromisoformat(_read_json(folder.record)["ended"]).timestamp()
    except (KeyError, TypeError, ValueError):
        return read_time(folder.trial)


def _read_json(file: Path) -> dict[str, Any]:
    """Return the object in a file of JSON; an empty one if it is missing or damaged."""
    try:
        content = json.loads(read_shared(file))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}
