"""Prediction of selected images with the saved weights of a trial. Imports torch, so it is imported where needed."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from fcnlab.constants import CheckpointChoice
from fcnlab.data.datasets.palette import find_palette
from fcnlab.data.decoded import DecodedSplit, open_decoded
from fcnlab.kernels.inputs import DecodedSample
from fcnlab.lab import Lab
from fcnlab.training import hardware
from fcnlab.training.evaluate import evaluate_split
from fcnlab.training.protocol import Protocol
from fcnlab.trial.evaluation.samples import save_sample
from fcnlab.trial.find import FinishedTrial
from fcnlab.trial.storage.sample_name import name_samples


class _Subset(DecodedSplit):
    """Some samples of a split, in the order of the split."""

    def __init__(self, split: DecodedSplit, ids: Sequence[str]) -> None:
        self._source = split
        self._indices = [index for index, id_ in enumerate(split.ids) if id_ in set(ids)]

    @property
    def ids(self) -> tuple[str, ...]:
        """Ids of the samples."""
        return tuple(self._source.ids[index] for index in self._indices)

    def __getitem__(self, index: int) -> DecodedSample:
        return self._source[self._indices[index]]


def predict_images(
    finished: FinishedTrial, lab: Lab, ids: Sequence[str], checkpoint: CheckpointChoice, into: Path
) -> None:
    """Predict images of the reported split as in its evaluation, and save them like the samples of a trial.

    Args:
        finished: the trial.
        lab: the lab with the dataset.
        ids: ids of the images.
        checkpoint: the weights to use, `last` or `best`.
        into: folder for the pictures.

    Raises:
        RunError, ModelError: the weights are missing or cannot be read.
        DataError: the dataset is missing.
    """
    trial, device = finished.trial, hardware.select_device()
    model = hardware.move_to_device(finished.load_model(checkpoint), device)
    dataset = lab.open_dataset(trial.dataset)
    split = open_decoded(dataset, trial.dataset.evaluated_splits[-1])
    subset, names = _Subset(split, ids), name_samples(split.ids)
    palette = find_palette(trial.dataset, dataset.classes)
    precision = hardware.resolve_recorded_precision(trial.recipe.precision, finished.recorded_precision, device)

    into.mkdir(parents=True, exist_ok=True)
    # Later reports show every file that is there, so an interrupted one must not leave a truncated file.
    with tempfile.TemporaryDirectory(dir=into, prefix=".") as temporary:

        def save(index: int, prediction: Tensor) -> None:
            save_sample(Path(temporary), names[subset.ids[index]], subset[index], prediction, palette)

        evaluate_split(
            model,
            subset,
            num_classes=len(dataset.classes),
            autocast=hardware.create_autocast(device, precision),
            on_prediction=save,
            protocol=Protocol().multiply_scales(trial.recipe.score_scale),
        )
        files = sorted(Path(temporary).iterdir(), key=lambda file: file.name.endswith(".prediction.png"))
        for file in files:  # the predictions last: an image with one is complete
            file.replace(into / file.name)
