"""A trial: variant x dataset x recipe x seed, and the key that its content has."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from fcnlab.config.base import Config, Doc, Whole
from fcnlab.config.dataset import Dataset
from fcnlab.config.recipe import Recipe
from fcnlab.config.variant import Variant

NUMERICS = 1
"""Raised by hand when a change of the code changes the figures of training or scoring for an unchanged file."""


class Trial(Config):
    """The unit that is run, cached and recorded.

    `names` says what the parts are called in the catalogue; it is for people and does not enter the key.
    `data` and `weights` are content fingerprints: of the dataset's files and of a local weights file. `init_from`
    is the key of a finished trial from whose last weights this one starts.
    """

    variant: Variant
    dataset: Dataset
    recipe: Recipe
    seed: Whole
    names: dict[str, str] = Doc()
    data: str
    weights: str | None = None
    init_from: str | None = None

    def identity(self) -> dict[str, Any]:
        """What makes this trial this trial, as plain values.

        Every entry is inlined; documentation, names and places on this machine are left out; values at their
        default are left out too, so that a field added later leaves the keys of finished trials alone.
        """
        content = self.content()
        if self.weights is not None:  # the content of the file counts, not where it lies
            content["variant"]["backbone"]["weights"] = "file"
        content["dataset"].pop("folder", None)
        return {**content, "numerics": NUMERICS}

    @property
    def key(self) -> str:
        """The sha256 of the canonical JSON of the identity, 64 hexadecimal digits."""
        return key_of(self.identity())

    @property
    def report_split(self) -> str:
        """The split on which the figure is reported: test, or val where there is no test."""
        return "test" if self.dataset.splits.test is not None else "val"


def key_of(identity: Mapping[str, Any]) -> str:
    """The key of what has this identity."""
    canonical = json.dumps(identity, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(canonical.encode()).hexdigest()
