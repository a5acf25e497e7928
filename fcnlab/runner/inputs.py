"""Fingerprints of the datasets and weights files of a grid.

They are computed from the files. Commands that only read results work without these: the fingerprints that earlier
trials have recorded then replace those of missing files.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from fcnlab.config.dataset import Dataset
from fcnlab.config.grid.cell import Cell, InputFingerprints
from fcnlab.config.grid.grid import Grid
from fcnlab.config.recipe import Recipe
from fcnlab.config.trial import Trial
from fcnlab.config.variant import Backbone, Variant
from fcnlab.errors import DataError, FcnlabError, ModelError
from fcnlab.lab import Lab
from fcnlab.trial.recorded_inputs import RecordedInputs

UNRECORDED = "unrecorded"
"""Fingerprint of a missing input that no trial has recorded: a trial with it has not been started in this lab."""


@dataclass(frozen=True)
class GridInputs:
    """Fingerprints of the inputs of a grid's trials.

    Attributes:
        lab: the lab with the files.
        data: fingerprints of missing datasets, by the `repr` of their configuration.
        weights: fingerprints of missing weights files, by their name in the configuration.
        names: names of the missing inputs, for messages.
        unrecorded: names of those that no trial has recorded, at least for one fold.
    """

    lab: Lab
    data: Mapping[str, str] = field(default_factory=dict)
    weights: Mapping[str, str] = field(default_factory=dict)
    names: tuple[str, ...] = ()
    unrecorded: tuple[str, ...] = ()

    def fingerprints(self, variant: Variant, dataset: Dataset, recipe: Recipe) -> InputFingerprints:
        """Return the fingerprints of the inputs of a trial.

        Args:
            variant: configuration of the variant.
            dataset: configuration of the dataset.
            recipe: the recipe.
        """
        if not self.names:
            return self.lab.fingerprints(variant, dataset, recipe)
        data, weights = self.data.get(repr(dataset)), self.weights.get(variant.backbone.weights_file or "")
        return InputFingerprints(
            self.lab.fingerprint_data(dataset) if data is None else data,
            self.lab.fingerprint_weights(variant.backbone) if weights is None else weights,
            self.lab.extensions.fingerprints(variant.head, dataset, recipe),
        )

    def describe_missing(self) -> str | None:
        """Return one line about the missing inputs; None if there are none."""
        if not self.names:
            return None
        line = (
            f"not found: {', '.join(self.names)} (--data-root sets the folder); the trials are identified by the data "
            f"and weights of the latest trials in {self.lab.runs}"
        )
        return line + (f", which has no such trial of {', '.join(self.unrecorded)}" if self.unrecorded else "")


def has_unrecorded_inputs(trial: Trial) -> bool:
    """Return whether no trial has recorded the fingerprint of a missing input of a trial, so that its key is unknown.

    Args:
        trial: a trial of a plan.
    """
    return UNRECORDED in (trial.data, trial.weights)


def find_inputs(grid: Grid, lab: Lab, *, recorded: bool = False) -> GridInputs:
    """Find the datasets and weights files of a grid, and compute their fingerprints.

    Args:
        grid: the grid.
        lab: the lab with the files.
        recorded: replace the fingerprints of missing files by those that the trials of the lab have recorded.

    Raises:
        DataError: a dataset is damaged, or is missing and not replaced; the message lists all such inputs.
        ModelError: the same for a weights file.
    """
    errors: dict[str, FcnlabError] = {}
    missing: dict[str, FcnlabError] = {}
    datasets: dict[str, tuple[str, Dataset]] = {}
    weights: dict[str, str] = {}
    for name, dataset in _list_datasets(grid):
        try:
            lab.fingerprint_data(dataset)
        except DataError as error:
            if lab.has_data(dataset):
                errors.setdefault(str(error), error)
            else:
                missing.setdefault(str(error), error)
                datasets[repr(dataset)] = name, dataset
    for backbone in _list_backbones(grid):
        try:
            lab.fingerprint_weights(backbone)
        except DataError as error:  # it cannot be read
            errors.setdefault(str(error), error)
        except ModelError as error:
            missing.setdefault(str(error), error)
            weights[backbone.weights_file or ""] = f"weights file '{backbone.weights_file}'"
    inputs = _replace_missing(lab, datasets, weights) if recorded and missing else None
    if inputs is None:
        errors = missing | errors
    if errors:
        raise type(next(iter(errors.values())))("\n".join(errors))
    return inputs or GridInputs(lab)


def _replace_missing(
    lab: Lab, datasets: Mapping[str, tuple[str, Dataset]], weights: Mapping[str, str]
) -> GridInputs | None:
    """Return the recorded fingerprints of missing inputs; None if no trial has recorded any of them."""
    recorded = RecordedInputs(lab.runs)
    data = {text: recorded.find_data(dataset) for text, (_, dataset) in datasets.items()}
    files = {name: recorded.find_weights(name) for name in weights}
    if not any((*data.values(), *files.values())):
        return None
    found = [(datasets[text][0], fingerprint) for text, fingerprint in data.items()]
    found += [(weights[name], fingerprint) for name, fingerprint in files.items()]
    return GridInputs(
        lab,
        {text: fingerprint or UNRECORDED for text, fingerprint in data.items()},
        {name: fingerprint or UNRECORDED for name, fingerprint in files.items()},
        tuple(dict.fromkeys(name for name, _ in found)),
        tuple(dict.fromkeys(name for name, fingerprint in found if fingerprint is None)),
    )


def _iterate_cells(grid: Grid) -> Iterator[Cell]:
    """Yield the cells of a grid, and those whose trials they are initialized from."""
    for cell in grid.cells:
        each: Cell | str | None = cell
        while isinstance(each, Cell):
            yield each
            each = each.init_from


def _list_datasets(grid: Grid) -> list[tuple[str, Dataset]]:
    """Return the datasets of the trials of a grid without duplicates, with the names for messages."""
    cells = {repr(cell.dataset): cell for cell in _iterate_cells(grid)}
    datasets: dict[str, tuple[str, Dataset]] = {}
    for cell in cells.values():
        seeds = grid.seeds if cell.dataset.folds_by_seed is not None else grid.seeds[:1]
        for dataset in (cell.dataset.select_fold(seed) for seed in seeds):
            datasets[repr(dataset)] = f"dataset {cell.names['dataset']}", dataset
    return list(datasets.values())


def _list_backbones(grid: Grid) -> list[Backbone]:
    """Return the backbones of the trials of a grid without duplicates."""
    return list({repr(cell.variant.backbone): cell.variant.backbone for cell in _iterate_cells(grid)}.values())
