"""Measurement of a trial's cost: train for a few steps, and evaluate a few images. Nothing is recorded."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from fcnlab.config.trial import Trial
from fcnlab.data.batches import TrainingBatches
from fcnlab.data.datasets.base import Dataset, Sample, Split
from fcnlab.data.decoded import DecodedSplit
from fcnlab.errors import first_line
from fcnlab.extensions.guard import USER_ERRORS
from fcnlab.lab import Lab
from fcnlab.models import FCN
from fcnlab.runner.cost.rate import EXTRAPOLATED_SPREAD, PROBE_SPREAD, CostRate
from fcnlab.runner.executors import fork_server
from fcnlab.training import hardware
from fcnlab.training.cost import try_count_gmacs
from fcnlab.training.evaluate import CPU_BATCH_SIZE, evaluate_split
from fcnlab.training.fit import DivergenceError, Execution, Training, fit
from fcnlab.training.protocol import Protocol
from fcnlab.trial.build import build_model, build_training

SECONDS = 1.0
"""Duration of the timed training steps, if one step is not longer."""

STEPS = 4
"""Maximum number of timed training steps."""

SMALL_BATCH = 2
"""Images of the first step, unless the head needs more."""

PATIENCE = 0.25
"""Fraction of the time until the deadline that one further measurement may take."""

RECORD_SECONDS = 0.5
"""Seconds to fork a process, and to write weights and record at the end."""


class _Beginning(Dataset):
    """The first images of each split of a dataset."""

    def __init__(self, dataset: Dataset, images: int) -> None:
        self.classes, self.code = dataset.classes, f"{dataset.code} {images}"
        self._dataset, self._images = dataset, images

    def split(self, name: str) -> Split:
        return _BeginningOfSplit(self._dataset.split(name), self._images)

    def fingerprint(self, splits: tuple[str, ...]) -> str:
        return f"{self._dataset.fingerprint(splits)} {self._images}"


class _BeginningOfSplit(Split):
    def __init__(self, split: Split, images: int) -> None:
        self.ids, self._split = split.ids[:images], split

    def __getitem__(self, index: int) -> Sample:
        return self._split[index]


class _FewBatches:
    """The first batches of an epoch, or their first images."""

    def __init__(self, batches: TrainingBatches, steps: int, images: int) -> None:
        self.steps, self._batches, self._images = steps, batches, images

    def epoch(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        for step in range(self.steps):
            for images, labels in islice(self._batches.epoch(epoch * self.steps + step), 1):
                yield images[: self._images], labels[: self._images]


@dataclasses.dataclass(frozen=True)
class _Steps:
    """Seconds of a training step, and those that the first step takes in addition.

    Attributes:
        step: seconds of a step.
        warm_up: additional seconds of the first step.
        full: whether a full batch was measured.
    """

    step: float
    warm_up: float
    full: bool


def try_measure(trial: Trial, lab: Lab, threads: int, deadline: float) -> CostRate | str:
    """Measure the cost rate of a trial in this process, whose output is discarded from then on.

    Args:
        trial: the trial.
        lab: the lab of the data and weights files.
        threads: the number of CPU threads.
        deadline: time at which measuring should end, in seconds of `time.monotonic`, which all processes share.

    Returns:
        The cost rate, or the error.
    """
    with Path(os.devnull).open("wb") as nothing:
        for stream in (1, 2):
            os.dup2(nothing.fileno(), stream)
    torch.set_num_threads(threads)
    hardware.retain_freed_memory()
    try:
        return measure_trial(trial, lab, deadline)
    except USER_ERRORS as error:  # other trials are measured, and the plan reports the error
        return first_line(error)


def measure_trial(trial: Trial, lab: Lab, deadline: float) -> CostRate:
    """Measure the cost rate of a trial on a few steps and images.

    Building the network and a first step with two images always run. From its time the others are predicted, and those
    that would take too much of the time until the deadline are left out.

    Args:
        trial: the trial.
        lab: the lab of the data and weights files.
        deadline: time at which measuring should end, in seconds of `time.monotonic`.

    Returns:
        The cost rate, scaled to full epochs.

    Raises:
        DataError: the dataset is missing or invalid.
        ModelError: the model cannot be built.
    """
    began = time.perf_counter()
    device, recipe = hardware.select_device(), trial.recipe
    hardware.configure_determinism(device)
    full_dataset = lab.open_dataset(trial.dataset)
    images = len(full_dataset.split(trial.dataset.splits.train))
    dataset = _Beginning(full_dataset, max(recipe.batch_size, CPU_BATCH_SIZE))
    model = build_model(
        trial.variant,
        len(dataset.classes),
        trial.seed,
        weights_file=lab.find_weights_file(trial.variant.backbone),
        extensions=lab.extensions,
        in_channels=trial.dataset.image_channels,
    )
    hardware.move_to_device(model, device)
    training = build_training(
        recipe.model_copy(update={"train_size": 1.0}),
        model,
        dataset,
        split=trial.dataset.splits.train,
        seed=trial.seed,
        extensions=lab.extensions,
    )
    built = time.perf_counter() - began
    decode_seconds = _measure_decoding(dataset.split(trial.dataset.splits.train))
    steps = _measure_steps(model, training, trial, deadline)
    image_seconds, final_image_seconds = _measure_evaluation(training.averaged or model, dataset, trial, deadline)
    began = time.perf_counter()
    if _has_time_for(image_seconds, deadline):
        nominal = trial.dataset.nominal
        try_count_gmacs(model, (nominal.height, nominal.width))
    finishing = time.perf_counter() - began
    return CostRate(
        epoch_seconds=steps.step * recipe.count_steps(images),
        image_seconds=image_seconds,
        final_image_seconds=max(final_image_seconds, image_seconds),
        setup_seconds=built + steps.warm_up + finishing + RECORD_SECONDS,
        memory=hardware.get_peak_memory(device) if steps.full else None,
        disk=2 * sum(value.nbytes for value in model.state_dict().values()),  # the checkpoints `last` and `best`
        device=hardware.get_device_name(device),
        trials=0,
        spread=PROBE_SPREAD if steps.full else EXTRAPOLATED_SPREAD,
        decode_seconds=decode_seconds,
        start_seconds=fork_server.import_seconds,
    )


def _has_time_for(seconds: float, deadline: float) -> bool:
    """Return whether a measurement of this expected time is short enough."""
    return seconds <= PATIENCE * (deadline - time.monotonic())


def _measure_decoding(split: Split) -> float:
    """Return the seconds to decode one image."""
    count = min(len(split), CPU_BATCH_SIZE)
    began = time.perf_counter()
    for index in range(count):
        split[index]
    return (time.perf_counter() - began) / count


def _measure_steps(model: FCN, training: Training, trial: Trial, deadline: float) -> _Steps:
    """Measure a step with few images, then full steps if they take a small part of the time until the deadline."""
    batch = trial.recipe.batch_size
    small_batch = min(batch // trial.recipe.grad_accum_steps, max(SMALL_BATCH, trial.variant.head.min_images))
    small_step = _train(model, training, trial, 1, small_batch)
    predicted = small_step * batch / small_batch
    if not _has_time_for(predicted, deadline):
        return _Steps(predicted, 0.0, full=False)
    first_step = _train(model, training, trial, 1, batch)
    if not _has_time_for(first_step, deadline):
        return _Steps(first_step, 0.0, full=True)
    steps = max(1, min(STEPS, round(SECONDS / first_step)))
    step = _train(model, training, trial, steps, batch) / steps
    warm_up = max(0.0, small_step - step * small_batch / batch) + max(0.0, first_step - step)
    return _Steps(step, warm_up, full=True)


def _train(model: FCN, training: Training, trial: Trial, steps: int, images: int) -> float:
    """Train for some steps with the first images of batches; return their seconds."""
    recipe, device = trial.recipe, next(model.parameters()).device
    batches = _FewBatches(training.batches, steps, images)
    began = time.perf_counter()
    with suppress(DivergenceError):  # costs the same time; the trial itself may start from other weights
        fit(
            model,
            dataclasses.replace(training, batches=cast(TrainingBatches, batches), capturable=False),
            Execution(
                hardware.create_autocast(device, hardware.resolve_precision(recipe.precision, device)),
                grad_accum_steps=recipe.grad_accum_steps if images == recipe.batch_size else 1,
            ),
            epochs=1,
        )
    return time.perf_counter() - began


def _measure_evaluation(model: FCN, dataset: Dataset, trial: Trial, deadline: float) -> tuple[float, float]:
    """Return the seconds to evaluate one image, while training and at the end of a trial, with its boundaries."""
    device, recipe = next(model.parameters()).device, trial.recipe
    autocast = hardware.create_autocast(device, hardware.resolve_precision(recipe.precision, device))
    split = DecodedSplit(dataset.split(trial.dataset.splits.val))
    samples = [split[index] for index in range(min(len(split), CPU_BATCH_SIZE))]

    def evaluate(count: int, *, boundaries: bool) -> float:
        started = time.perf_counter()
        evaluate_split(
            model,
            cast(DecodedSplit, samples[:count]),
            num_classes=len(dataset.classes),
            autocast=autocast,
            protocol=Protocol(scales=(recipe.score_scale,)),
            boundaries=boundaries,
        )
        return (time.perf_counter() - started) / count

    count = len(samples)
    seconds = evaluate(1, boundaries=False)
    if not _has_time_for(seconds * count, deadline):
        return seconds, seconds
    seconds = evaluate(count, boundaries=False)
    if seconds * count < 2 * SECONDS:
        seconds = evaluate(count, boundaries=False)
    return seconds, evaluate(count, boundaries=True) if _has_time_for(seconds * count, deadline) else seconds
