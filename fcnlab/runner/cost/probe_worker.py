"""Process of a probe: train a trial for a few steps, evaluate a few images, and print the cost rate.

    python -m fcnlab.runner.cost.probe_worker LAB DATA_ROOT THREADS

The trial is read as JSON from standard input, and the cost rate is written as JSON to standard output. Nothing is
recorded.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from fcnlab.config.trial import Trial
from fcnlab.data.batches import TrainingBatches
from fcnlab.data.decoded import DecodedSplit, open_decoded
from fcnlab.errors import FcnlabError
from fcnlab.kernels.inputs import DecodedSample
from fcnlab.lab import Lab
from fcnlab.models import FCN
from fcnlab.runner.cost.history import CostRate
from fcnlab.runner.cost.probe import IMAGES, STEPS
from fcnlab.training import hardware
from fcnlab.training.evaluate import evaluate_split
from fcnlab.training.fit import Epoch, fit
from fcnlab.training.protocol import Protocol
from fcnlab.trial.build import build_model, build_training


class _FewBatches:
    """The first batches of each epoch."""

    def __init__(self, batches: TrainingBatches) -> None:
        self.steps = min(STEPS, batches.steps)
        self._batches = batches

    def epoch(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        return islice(self._batches.epoch(epoch), self.steps)


class _FewSamples:
    """The first samples of a split."""

    def __init__(self, split: DecodedSplit) -> None:
        self._split = split

    def __len__(self) -> int:
        return min(IMAGES, len(self._split))

    def __getitem__(self, index: int) -> DecodedSample:
        return self._split[index]


def main(root: str, data_root: str, threads: str) -> None:
    """Measure the trial on standard input and print its cost rate.

    Args:
        root: the folder of the lab.
        data_root: the folder of the datasets; empty for the default.
        threads: the number of CPU threads.
    """
    torch.set_num_threads(int(threads))
    hardware.retain_freed_memory()
    trial = Trial.model_validate_json(sys.stdin.read())
    try:
        rate = measure(trial, Lab(Path(root), Path(data_root) if data_root else None))
    except FcnlabError as error:
        sys.exit(str(error))
    print(json.dumps(dataclasses.asdict(rate)))  # noqa: T201 - read by `probe`


def measure(trial: Trial, lab: Lab) -> CostRate:
    """Measure the cost rate of a trial on a few steps and images.

    Args:
        trial: the trial.
        lab: the lab of the data and weights files.

    Returns:
        The cost rate, scaled to full epochs and the whole val split.

    Raises:
        DataError: the dataset is missing or invalid.
        ModelError: the model cannot be built.
    """
    device, recipe = hardware.select_device(), trial.recipe
    precision = hardware.resolve_precision(recipe.precision, device)
    hardware.configure_determinism(device)
    dataset = lab.open_dataset(trial.dataset)
    weights_file = lab.find_weights_file(trial.variant.backbone)
    channels = trial.dataset.image_channels
    model = build_model(trial.variant, len(dataset.classes), trial.seed, weights_file, lab.extensions, channels)
    model = model.to(device).to(memory_format=torch.channels_last)
    training = build_training(recipe, model, dataset, trial.dataset.splits.train, trial.seed, device)
    few = _FewBatches(training.batches)
    autocast = hardware.create_autocast(device, precision)
    epochs: list[Epoch] = []
    fit(
        model,
        cast(TrainingBatches, few),
        epochs=2,
        start_epoch=0,
        loss=training.loss,
        optimizer=training.optimizer,
        schedule=training.schedule,
        autocast=autocast,
        on_epoch_end=epochs.append,
        grad_accum_steps=recipe.grad_accum_steps,
        grad_clip_norm=recipe.grad_clip_norm,
        average=training.average,
    )
    val = open_decoded(dataset, trial.dataset.splits.val)
    samples = _FewSamples(val)
    evaluated = training.averaged or model

    def evaluate() -> None:
        evaluate_split(
            evaluated,
            cast(DecodedSplit, samples),
            classes=len(dataset.classes),
            mean=model.backbone.mean,
            std=model.backbone.std,
            device=device,
            autocast=autocast,
            protocol=Protocol(scales=(recipe.score_scale,)),
        )

    evaluate()  # warm-up
    return CostRate(
        epoch_seconds=epochs[-1].seconds * training.batches.steps / few.steps,
        evaluation_seconds=_measure_seconds(evaluate) * len(val) / len(samples),
        memory=hardware.get_peak_memory(device),
        disk=2 * _count_bytes(model),  # the checkpoints `last` and `best`
        device=hardware.get_device_name(device),
        trials=0,
    )


def _measure_seconds(call: Callable[[], None]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def _count_bytes(model: FCN) -> int:
    return sum(value.nbytes for value in model.state_dict().values())


if __name__ == "__main__":
    main(*sys.argv[1:])
