"""A trial: variant, dataset, recipe and seed, with a key that is a hash of their content."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from fcnlab.config.base import Config, Whole
from fcnlab.config.dataset import AnyDataset
from fcnlab.config.recipe import Recipe
from fcnlab.config.variant import Variant

NUMERICS = 2
"""Raised by hand when a change of the code changes the metrics of an unchanged configuration."""


class Trial(Config):
    """Configuration of the unit that is run, cached and recorded.

    Attributes:
        variant: the architecture.
        dataset: images and labels.
        recipe: the training.
        seed: seed of all random numbers.
        names: names of the components in the registry, for display; not in the key.
        data: fingerprint of the content of the dataset.
        weights: fingerprint of the content of a local weights file.
        init_from: key of a finished trial whose last weights are loaded before training.
        extensions: fingerprints of the code of a head, dataset, loss and transform that are not built in, by kind.
    """

    not_in_key: ClassVar[frozenset[str]] = frozenset({"names"})
    renamed: ClassVar[dict[str, str]] = {"start": "init_from"}

    variant: Variant
    dataset: AnyDataset
    recipe: Recipe
    seed: Whole
    names: dict[str, str]
    data: str
    weights: str | None = None
    init_from: str | None = None
    extensions: dict[str, str] = {}  # noqa: RUF012 - pydantic copies defaults

    def identity(self) -> dict[str, Any]:
        """Return the content that the key is computed from, as plain values.

        Names, descriptions and paths are left out; so are values at their default, so that a field that is added later
        does not change the keys of finished trials.
        """
        content = self.content()
        if self.weights is not None:  # the fingerprint represents the file, its path does not matter
            content["variant"]["backbone"]["weights"] = "file"
        content["dataset"].pop("folder", None)
        return {**content, "numerics": NUMERICS}

    @property
    def key(self) -> str:
        """The SHA-256 of the canonical JSON of the identity, 64 hexadecimal digits."""
        return compute_key(self.identity())

    @property
    def report_split(self) -> str:
        """The split whose metrics are reported: test, or val where there is no test split."""
        return "test" if self.dataset.splits.test is not None else "val"


def compute_key(identity: Mapping[str, Any]) -> str:
    """Return the key of an identity.

    Args:
        identity: as returned by `Trial.identity`.

    Returns:
        64 hexadecimal digits.
    """
    return hashlib.sha256(canonical(identity).encode()).hexdigest()


def canonical(content: Any) -> str:
    """Return plain values as JSON text that is the same for equal values.

    Args:
        content: as returned by `Config.content`; other values are written as their `str`.

    Returns:
        JSON with sorted keys, without whitespace.

    >>> canonical({"b": 1, "a": [True, None]})
    '{"a":[true,null],"b":1}'
    """
    return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True, default=str)


def list_fields(trial: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of the components of a trial by their paths, such as `recipe.optimizer.lr`.

    Args:
        trial: the trial as plain values.

    Returns:
        The values, without descriptions; of mappings the values inside, unless they are empty.
    """
    components = {**trial["variant"], "dataset": trial["dataset"], "recipe": trial["recipe"]}
    return dict(_iterate_leaves(components, ""))


def _iterate_leaves(values: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _iterate_leaves(value, f"{prefix}{name}.")
        elif name != "description":
            yield f"{prefix}{name}", value
