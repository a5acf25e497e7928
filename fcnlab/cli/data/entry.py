"""The dataset argument of the `fcnlab data` commands."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from fcnlab.config.dataset import Dataset
    from fcnlab.lab import Lab

DatasetName = Annotated[str, typer.Argument(metavar="NAME", help="A dataset of the registry", show_default=False)]


def dataset_entry(lab: Lab, name: str) -> Dataset:
    """Return the registry entry of a dataset. Raises ConfigError if there is none."""
    from fcnlab.config.dataset import Dataset

    spec = lab.registry.get("dataset", name)
    assert isinstance(spec, Dataset)
    return spec
