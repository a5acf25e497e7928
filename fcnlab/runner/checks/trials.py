"""Check planned trials: batches that fit the data, networks that accept the sizes of the images, code and weights."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from fcnlab.config.head import CustomHead
from fcnlab.config.trial import Trial
from fcnlab.config.variant import Backbone
from fcnlab.data.datasets.base import Dataset, Split
from fcnlab.data.datasets.sizes import Sizes, read_sizes, representative_sizes
from fcnlab.errors import ConfigError, list_some
from fcnlab.lab import Lab
from fcnlab.runner.checks.loss import find_loss_errors
from fcnlab.runner.checks.network import NetworkSetup, find_error
from fcnlab.runner.checks.pretrained import find_missing_weights
from fcnlab.runner.checks.transform import TransformChecks
from fcnlab.runner.executors.call_process import Call, call_directly
from fcnlab.runner.plan import PlannedTrial

MOST_LEFT_OUT = 0.1
"""Share of the training images that an epoch may leave out without a warning."""

MAX_LABELS = 3
"""Maximum number of cells that one line lists."""


def check_trials(
    trials: Iterable[PlannedTrial],
    lab: Lab,
    file: Path,
    data: OpenedData | None = None,
    call: Call = call_directly,
) -> list[str]:
    """Check that trials can be trained and evaluated, as far as this is known without running them.

    Each distinct network is built once on the meta device, and run with a batch of its crops and with images of the
    sizes on which it is evaluated. Each distinct loss term of an extension is computed for small batches, and each
    transform is applied to a few images. The results are cached. A head, loss term or transform is not created if the
    user has not allowed its code.

    Args:
        trials: the trials that are to be run.
        lab: the lab of the data and extensions.
        file: the grid file, for messages.
        data: the datasets of the trials that are open already; None opens them.
        call: calls the functions that import torch, for checks whose results are not cached.

    Returns:
        A warning for each suspicious result of a transform, for each training split much of which does not fit into
        batches, and for code that was not checked.

    Raises:
        ConfigError: one line per error, with the cells that have it, and one per missing file of published weights; or
            an extension cannot be loaded.
        DataError: a dataset is missing.
    """
    data = data or OpenedData(lab)
    backbones: dict[int, Backbone] = {}
    cells_by_error: dict[str, dict[str, None]] = {}
    network_errors: dict[NetworkSetup, list[str]] = {}
    transforms = TransformChecks(lab, call)
    warnings: dict[str, None] = {}
    # The trials of a cell differ in their seed, and in their data if each seed has another fold or split.
    for planned in {(id(planned.cell), planned.trial.data): planned for planned in trials}.values():
        trial = planned.trial
        backbones[id(trial.variant.backbone)] = trial.variant.backbone
        setup = data.describe_network(trial)
        if setup not in network_errors:
            error = find_error(setup, lab, call) if _may_be_built(trial, lab) else None
            network_errors[setup] = [error] if error is not None else []
        dataset = data.dataset(trial)
        messages = [
            *_find_batch_errors(trial, data),
            *network_errors[setup],
            *find_loss_errors(trial, len(dataset.classes), lab, call),
            *transforms.find_errors(trial, dataset),
        ]
        for message in messages:
            cells_by_error.setdefault(message, {})[planned.cell.label] = None
        warnings |= dict.fromkeys([*_find_left_out_images(trial, data), *_find_unchecked_code(trial, lab)])
    errors = [f"{file}: {_name_cells(list(labels))}: {message}" for message, labels in cells_by_error.items()]
    errors += [f"{file}: {message}" for message in find_missing_weights(backbones.values(), file, call)]
    if errors:
        raise ConfigError("\n".join(errors))
    return [*transforms.warnings, *warnings]


class OpenedData:
    """The datasets of the trials of a plan. Each is opened once."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._datasets: dict[str, Dataset] = {}
        self._splits: dict[tuple[str, str], Split] = {}
        self._sizes: dict[tuple[str, str], Sizes] = {}
        self._setups: dict[tuple[int, int, str], NetworkSetup] = {}

    def dataset(self, trial: Trial) -> Dataset:
        """Return the dataset of a trial."""
        if trial.data not in self._datasets:
            self._datasets[trial.data] = self._lab.open_dataset_once(trial.dataset)
        return self._datasets[trial.data]

    def split(self, trial: Trial, name: str) -> Split:
        """Return a split of the dataset of a trial."""
        if (trial.data, name) not in self._splits:
            self._splits[trial.data, name] = self.dataset(trial).split(name)
        return self._splits[trial.data, name]

    def count_steps(self, trial: Trial) -> int:
        """Return the number of optimizer steps of a trial."""
        return trial.recipe.epochs * self.count_epoch_steps(trial)

    def count_epoch_steps(self, trial: Trial) -> int:
        """Return the number of optimizer steps of an epoch of a trial."""
        return trial.recipe.count_steps(len(self.split(trial, trial.dataset.splits.train)))

    def sizes(self, trial: Trial, name: str) -> Sizes:
        """Return the number of images of a split by height and width."""
        if (trial.data, name) not in self._sizes:
            self._sizes[trial.data, name] = read_sizes(self.split(trial, name), name, trial.data)
        return self._sizes[trial.data, name]

    def describe_network(self, trial: Trial) -> NetworkSetup:
        """Return the network of a trial with the sizes at which it is used."""
        components = (id(trial.variant), id(trial.recipe), trial.data)  # most trials share their components
        if components not in self._setups:
            evaluated: Sizes = Sizes()
            for name in trial.dataset.evaluated_splits:
                evaluated += self.sizes(trial, name)
            self._setups[components] = NetworkSetup.of(
                trial, len(self.dataset(trial).classes), representative_sizes(evaluated)
            )
        return self._setups[components]


def _may_be_built(trial: Trial, lab: Lab) -> bool:
    head = trial.variant.head
    return not isinstance(head, CustomHead) or lab.extensions.find("head", head.type).is_allowed


def _find_batch_errors(trial: Trial, data: OpenedData) -> list[str]:
    """Check that the training split has at least one batch, and the images that the recipe samples."""
    split, recipe = trial.dataset.splits.train, trial.recipe
    available = len(data.split(trial, split))
    images = recipe.count_images(available)
    where = f"'{split}' of {trial.names['dataset']}"
    if images > available:
        return [
            f"recipe.train_size: {images} images are more than the training split has ({available} images in "
            f"{where}); use at most {available}, or 1.0 for all"
        ]
    if images >= recipe.batch_size:
        return []
    if images < available:
        return [
            f"recipe.train_size: {recipe.train_size} leaves {images} of the {available} images in {where}, fewer than "
            f"a batch of {recipe.batch_size}; use a larger size, or 1.0 for all"
        ]
    return [
        f"recipe.batch_size: a batch of {recipe.batch_size} is more than the training split has ({images} images in "
        f"{where}); use at most {images}"
    ]


def _find_left_out_images(trial: Trial, data: OpenedData) -> list[str]:
    """Warn if many images of the training split are left out of each epoch, which consists of whole batches."""
    recipe, batch = trial.recipe, trial.recipe.batch_size
    images = recipe.count_images(len(data.split(trial, trial.dataset.splits.train)))
    left_out = images % batch
    if left_out <= MOST_LEFT_OUT * images:
        return []
    return [
        f"recipe.batch_size: with batches of {batch}, each {'pass' if recipe.steps_per_epoch else 'epoch'} leaves out "
        f"{left_out} of the {images} training images of {trial.names['dataset']}; a smaller batch leaves out fewer and "
        "makes more steps"
    ]


def _find_unchecked_code(trial: Trial, lab: Lab) -> list[str]:
    """Warn about a head, loss or transform that was not checked, because the user has not allowed its code."""
    used = lab.extensions.used(trial.variant.head, recipe=trial.recipe) if trial.extensions else {}
    return [
        f"{extension.where}: not checked, because the Python files of the lab are not allowed to run; if you trust "
        "them, run `fcnlab --allow-extensions ...`"
        for extension in used.values()
        if not extension.is_allowed
    ]


def _name_cells(labels: list[str]) -> str:
    quoted = [f"'{label}'" for label in labels]
    return f"cell{'s' * (len(labels) > 1)} {list_some(quoted, MAX_LABELS)}"
