"""Check of the transforms of recipes: they are applied to a few images of the training split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from fcnlab.config.augmentation import CustomTransform
from fcnlab.config.recipe import Recipe
from fcnlab.config.trial import Trial, canonical
from fcnlab.constants import IGNORE_INDEX
from fcnlab.data.datasets.base import Dataset, Sample, read_sample
from fcnlab.data.json_cache import cache_file, read_json, write_json
from fcnlab.errors import DataError, describe_error
from fcnlab.extensions.guard import USER_ERRORS
from fcnlab.lab import Lab
from fcnlab.runner.executors.call_process import Call
from fcnlab.version import __version__

if TYPE_CHECKING:
    from fcnlab.kernels.inputs import DecodedSample

IMAGES = 4
"""Number of images to which a transform is applied."""

EPOCHS = 3
"""Number of epochs in which it is applied to each image."""


@dataclass
class _Observations:
    """Properties of the results of a transform.

    Attributes:
        height: largest height of an image whose size has changed; 0 if there is none.
        width: largest width of an image whose size has changed; 0 if there is none.
        new_labels: labels of masks that the original mask does not contain, with the id of the first such sample.
    """

    height: int = 0
    width: int = 0
    new_labels: dict[str, str] = field(default_factory=dict)


class TransformChecks:
    """Checks of the transforms of trials. Each transform is applied once to each dataset; valid results are cached."""

    def __init__(self, lab: Lab, call: Call) -> None:
        """Apply no transform yet.

        Args:
            lab: the lab of the data and extensions.
            call: calls the functions that import torch.
        """
        self._lab, self._call = lab, call
        self._checked: dict[str, _Observations | str] = {}
        self._warnings: dict[str, None] = {}

    @property
    def warnings(self) -> list[str]:
        """The warnings about the transforms that have been checked, without duplicates."""
        return list(self._warnings)

    def find_errors(self, trial: Trial, dataset: Dataset) -> list[str]:
        """Return the errors of the transform of a trial.

        Args:
            trial: the trial.
            dataset: the dataset of the trial.

        Returns:
            One line, or none if the transform works, is not allowed to run, or the recipe has none.

        Raises:
            ConfigError: the class of the transform cannot be imported.
        """
        spec = trial.recipe.transform
        if spec is None or not self._lab.extensions.find("transform", spec.type).is_allowed:
            return []
        split = trial.dataset.splits.train
        identity = canonical([spec.content(), trial.extensions.get("transform"), trial.data, split, _versions()])
        if identity not in self._checked:
            self._checked[identity] = self._check(spec, identity, dataset, split)
        checked = self._checked[identity]
        if isinstance(checked, str):
            return [checked]
        self._warnings |= dict.fromkeys(_find_warnings(trial.recipe, spec, checked, dataset.classes))
        return []

    def _check(self, spec: CustomTransform, identity: str, dataset: Dataset, split: str) -> _Observations | str:
        """Apply a transform, unless an earlier check is in the cache; return what was observed, or an error."""
        file = cache_file("transforms", identity)
        if cached := read_json(file):
            return _Observations(**cached)
        num_classes, images = len(dataset.classes), dataset.split(split)
        samples = [read_sample(images, index, num_classes) for index in range(min(IMAGES, len(images)))]
        observed = self._call(_apply, spec, samples, split, num_classes, self._lab)
        if isinstance(observed, _Observations):
            write_json(file, asdict(observed))
        return observed


def _versions() -> list[str]:
    """Return the versions of the code that transforms use."""
    versions = [__version__]
    for name in ("torchvision", "albumentations"):
        try:
            versions.append(version(name))
        except PackageNotFoundError:
            versions.append("")
    return versions


def _apply(
    spec: CustomTransform, samples: Sequence[Sample], split: str, num_classes: int, lab: Lab
) -> _Observations | str:
    """Apply a transform to the first samples of a split; return what was observed, or an error."""
    import torch

    from fcnlab.data.sample_transform import create_sample_transform
    from fcnlab.kernels.inputs import DecodedSample

    transform = create_sample_transform(spec, num_classes, lab.extensions)
    assert transform is not None, "the recipe has one"
    where, observations = f"recipe.transform: {transform.name}", _Observations()
    for index, sample in enumerate(samples):
        original = DecodedSample(torch.tensor(sample.image).permute(2, 0, 1), torch.tensor(sample.label))
        for epoch in range(EPOCHS):
            try:
                transformed = transform(original, 0, epoch, index)
                repeated = transform(original, 0, epoch, index)
            except DataError as error:
                return f"{error} (image '{sample.id}' of {split})"
            except USER_ERRORS as error:  # whatever the user's class raises
                return f"{where}: raises {describe_error(error)} (image '{sample.id}' of {split})"
            same_image = torch.equal(transformed.image, repeated.image)
            if not (same_image and torch.equal(transformed.label, repeated.label)):
                return (
                    f"{where}: returns different results for the same random generator; use only the argument 'rng' "
                    "for random numbers"
                )
            _observe(observations, original, transformed, sample.id)
    return observations


def _observe(observations: _Observations, original: DecodedSample, transformed: DecodedSample, sample_id: str) -> None:
    """Add the size and the labels of a transformed sample."""
    if transformed.label.shape != original.label.shape:
        height, width = transformed.label.shape
        observations.height, observations.width = max(observations.height, height), max(observations.width, width)
    original_labels = {IGNORE_INDEX, *original.label.unique().tolist()}
    for label in transformed.label.unique().tolist():
        if label not in original_labels:
            observations.new_labels.setdefault(str(label), sample_id)


def _find_warnings(
    recipe: Recipe, spec: CustomTransform, observations: _Observations, classes: tuple[str, ...]
) -> list[str]:
    where = f"recipe.transform: {spec.type}"
    warnings = []
    if observations.new_labels:
        label, sample_id = next(iter(observations.new_labels.items()))
        warnings.append(
            f"{where}: adds pixels of class {label} ({classes[int(label)]}) to the mask of '{sample_id}', which has "
            f"none; fill masks with {IGNORE_INDEX} and resample them to the nearest pixel"
        )
    crop = recipe.crop
    if observations.height and (observations.height < crop.height or observations.width < crop.width):
        warnings.append(
            f"{where}: returns images of at most {observations.height}x{observations.width}, which are padded to "
            f"recipe.crop, {crop.height}x{crop.width}"
        )
    return warnings
