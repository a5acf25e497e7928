"""Predictions of chosen images, made again from the weights that a trial has left. Needs torch, so is imported late."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from fcnlab.data.decoded import DecodedSplit, open_decoded
from fcnlab.kernels.inputs import DecodedSample
from fcnlab.lab import Lab
from fcnlab.training import hardware
from fcnlab.training.evaluate import evaluate_split
from fcnlab.training.protocol import Protocol
from fcnlab.trial.find import FinishedTrial
from fcnlab.trial.record import CheckpointChoice
from fcnlab.trial.samples import save_sample


class Chosen(DecodedSplit):
    """Some samples of a split, in their order there."""

    def __init__(self, split: DecodedSplit, ids: Sequence[str]) -> None:
        self._source = split
        self._indices = [index for index, id_ in enumerate(split.ids) if id_ in set(ids)]

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids of the samples, in order."""
        return tuple(self._source.ids[index] for index in self._indices)

    def __getitem__(self, index: int) -> DecodedSample:
        return self._source[self._indices[index]]


def predict(finished: FinishedTrial, lab: Lab, ids: Sequence[str], checkpoint: CheckpointChoice, into: Path) -> None:
    """Predict images of the reported split as they were scored, and write them as a trial's samples are written.

    Raises:
        RunError, ModelError: the weights are no longer there, or cannot be read.
        DataError: the dataset is not there.
    """
    trial, device = finished.trial, hardware.select_device()
    model = finished.load_model(checkpoint).to(device).to(memory_format=torch.channels_last)
    dataset, splits = lab.open_dataset(trial.dataset), trial.dataset.splits
    chosen = Chosen(open_decoded(dataset, splits.test or splits.val), ids)

    def save(index: int, prediction: Tensor) -> None:
        save_sample(into, chosen.ids[index], chosen[index], prediction)

    into.mkdir(parents=True, exist_ok=True)
    evaluate_split(
        model,
        chosen,
        classes=len(dataset.classes),
        mean=model.backbone.mean,
        std=model.backbone.std,
        device=device,
        autocast=hardware.create_autocast(device, hardware.resolve_precision(trial.recipe.precision, device)),
        on_prediction=save,
        protocol=Protocol().multiply_scales(trial.recipe.score_scale),
    )
