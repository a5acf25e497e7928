"""Evaluation of a finished trial from its saved weights, under a protocol or on other data. Its record is not changed.

runs/<key>/evaluations/
    [<dataset>-<split>-]<protocol>[-best].json    metrics, and the inputs from which they were computed
    [<dataset>-<split>-]<protocol>[-best].npz     counts [N, num_classes, 3] of images and boundaries, the image ids,
                                                  and pixels by label and prediction [num_classes, num_classes]

A file name without dataset and split means the reported split.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from fcnlab.atomic_file import read_shared, write_atomically
from fcnlab.config.dataset import Dataset as DatasetConfig
from fcnlab.constants import KEY_DIGITS, CheckpointChoice, Precision
from fcnlab.data.datasets.fingerprint import hash_file
from fcnlab.data.decoded import open_decoded
from fcnlab.errors import DataError, RunError, list_some
from fcnlab.lab import Lab
from fcnlab.metrics.summary import ImageMetrics, compute_image_metrics
from fcnlab.paths import is_file
from fcnlab.storage_errors import convert_write_errors
from fcnlab.training import hardware
from fcnlab.training.evaluate import OnProgress, evaluate_split
from fcnlab.training.protocol import Protocol, Size
from fcnlab.trial.evaluation.metrics import compute_split_metrics
from fcnlab.trial.find import FinishedTrial
from fcnlab.trial.record import Record, SplitMetrics
from fcnlab.trial.repeated_images import count_training_images
from fcnlab.trial.storage.counts_check import read_arrays
from fcnlab.trial.storage.damage import DamageError

CONFUSION = "confusion"
"""Name of the confusion matrix in the file of an evaluation."""


class Evaluation(BaseModel):
    """Metrics of one trial under one protocol, and the inputs from which they were computed.

    Attributes:
        key: key of the trial.
        name: name of the protocol.
        scales: scales of the protocol.
        flip: whether images are also predicted mirrored.
        window: height and width of sliding windows.
        stride: rows and columns from window to window.
        weights: SHA-256 digest of the file with the weights.
        dataset: name of the dataset; None for the reported split.
        data: fingerprint of the data, and of the code of its dataset if that is an extension; None for the reported
            split.
        training_images: number of the images that the trial, or one that it is initialized from, was trained on; None
            for the reported split, or if it is not known.
        metrics: the metrics.
        seconds_per_image: wall-clock time, with decoding.
        device: name of the device.
        precision: precision of the forward pass.
        threads: number of CPU threads.
        ended: UTC time of the evaluation, in ISO format.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="null")

    key: str
    name: str
    scales: tuple[float, ...]
    flip: bool
    window: Size | None
    stride: Size | None
    weights: str
    dataset: str | None = None
    data: str | None = None
    training_images: int | None = None
    metrics: SplitMetrics
    seconds_per_image: float
    device: str
    precision: Precision
    threads: int
    ended: str


@dataclass(frozen=True)
class EvaluationTarget:
    """A split to evaluate on that is not the reported one.

    Attributes:
        dataset: name of the dataset in the registry.
        config: configuration of the dataset.
        split: name of the split.
    """

    dataset: str
    config: DatasetConfig
    split: str


def resolve_target(
    finished: FinishedTrial, lab: Lab, dataset: str | None, split: str | None
) -> EvaluationTarget | None:
    """Look up a dataset and a split by name; in a cross-validation, those with the fold of the trial's seed.

    Args:
        finished: the trial.
        lab: lab with the registry.
        dataset: name of a dataset; None for that of the trial.
        split: name of a split; None for the reported split of the dataset.

    Returns:
        The target; None if it is the reported split of the trial.

    Raises:
        ConfigError: the registry has no such dataset.
        DataError: the dataset is missing.
    """
    trained: DatasetConfig = finished.trial.dataset
    if dataset is None:
        name, config = finished.trial.names.get("dataset", trained.type), trained
    else:
        name, config = dataset, lab.registry.get("dataset", dataset).select_fold(finished.trial.seed)
    selected = split or config.evaluated_splits[-1]
    is_reported = (config.content(), selected) == (trained.content(), trained.evaluated_splits[-1])
    if is_reported and dataset is not None:  # the content of a folder dataset does not contain its paths
        is_reported = lab.open_dataset(config).fingerprint(config.used_splits) == finished.trial.data
    return None if is_reported else EvaluationTarget(name, config, selected)


def evaluation_file(
    finished: FinishedTrial,
    protocol: Protocol,
    checkpoint: CheckpointChoice,
    target: EvaluationTarget | None = None,
    out: Path | None = None,
) -> Path:
    """Return the path of the metrics of an evaluation.

    Args:
        finished: the trial.
        protocol: the protocol.
        checkpoint: the evaluated checkpoint, `last` or `best`.
        target: another split than the reported one.
        out: parent of a folder with the trial's key; None for the run folder.

    Returns:
        Path of a JSON file.
    """
    folder = out / finished.trial.key[:KEY_DIGITS] if out is not None else finished.folder.evaluations
    prefix = f"{target.dataset}-{target.split}-" if target is not None else ""
    return folder / (prefix.replace("/", "_") + protocol.slug + ("-best" if checkpoint == "best" else "") + ".json")


def evaluate_trial(
    finished: FinishedTrial,
    lab: Lab,
    protocol: Protocol,
    checkpoint: CheckpointChoice,
    on_progress: OnProgress | None = None,
    *,
    target: EvaluationTarget | None = None,
    out: Path | None = None,
) -> Evaluation:
    """Evaluate a finished trial under a protocol. An existing evaluation of the same inputs is only read.

    Args:
        finished: the trial.
        lab: lab with the dataset.
        protocol: the protocol; its scales are factors of the recipe's `score_scale`.
        checkpoint: the evaluated checkpoint, `last` or `best`.
        on_progress: function that is called with the number of finished images and of all images.
        target: another split than the reported one.
        out: parent of the folder for the files; None for the run folder.

    Returns:
        The evaluation.

    Raises:
        RunError: the weights are missing, or `out` cannot be written.
        DataError: the data of the trial or the code of its dataset has changed, or the target has other classes than
            the trial.
    """
    data = _check_data(finished, lab, target)
    weights = finished.weights_file(checkpoint)
    digest = hash_file(weights)
    file = evaluation_file(finished, protocol, checkpoint, target, out)
    arrays = file.with_suffix(".npz")
    device = hardware.select_device()
    precision = hardware.resolve_recorded_precision(
        finished.trial.recipe.precision, finished.recorded_precision, device
    )
    recorded = finished.reported_metrics(checkpoint)
    evaluated_split = target.split if target else recorded.split
    inputs: dict[str, Any] = {
        "key": finished.trial.key,
        "scales": protocol.scales,
        "flip": protocol.flip,
        "window": protocol.window,
        "stride": protocol.stride,
        "weights": digest,
        "dataset": target.dataset if target else None,
        "data": data,
        "precision": precision,
    }
    existing = _read(file)
    # All inputs are compared, because two of them may have one file name: scales are rounded in it, and names of
    # datasets and splits are joined by a hyphen, which they may contain.
    if (
        existing is not None
        and all(getattr(existing, name) == value for name, value in inputs.items())
        and (existing.metrics.split, existing.metrics.checkpoint) == (evaluated_split, checkpoint)
        and _is_intact(arrays)
    ):
        return existing

    with convert_write_errors(file.parent):
        file.parent.mkdir(parents=True, exist_ok=True)
    model = hardware.move_to_device(finished.load_model(checkpoint), device)
    config = target.config if target else finished.trial.dataset
    split = target.split if target else config.evaluated_splits[-1]
    dataset = lab.open_dataset(config)
    decoded = open_decoded(dataset, split)
    start = time.perf_counter()
    counts = evaluate_split(
        model,
        decoded,
        num_classes=len(dataset.classes),
        autocast=hardware.create_autocast(device, precision),
        protocol=protocol.multiply_scales(finished.trial.recipe.score_scale),
        boundaries=True,
        confusion=True,
        on_progress=on_progress,
    )
    seconds = time.perf_counter() - start
    if counts.contain_nan:
        raise RunError(
            f"scores on split '{split}' are not numbers, because activations exceed the range of {precision}; "
            "train with recipe.precision bf16 or fp32"
        )
    evaluation = Evaluation(
        **inputs,
        name=str(protocol),
        training_images=count_training_images(finished.trial, config, split, lab) if target else None,
        metrics=compute_split_metrics(evaluated_split, checkpoint, recorded.epoch, counts.areas, counts.boundaries),
        seconds_per_image=seconds / len(decoded),
        device=hardware.get_device_name(device),
        threads=torch.get_num_threads(),
        ended=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    stored: dict[str, Any] = {"counts": counts.areas, "boundary": counts.boundaries, "ids": np.array(decoded.ids)}
    stored[CONFUSION] = counts.confusion
    file.unlink(missing_ok=True)  # after a crash between the two files, old metrics would be combined with new counts
    write_atomically(arrays, lambda to: np.savez_compressed(to, **stored))
    write_atomically(file, lambda to: to.write(evaluation.model_dump_json(indent=1).encode()))
    return evaluation


def read_confusion(arrays: Path) -> NDArray[np.int64]:
    """Read the confusion matrix of an evaluation.

    Args:
        arrays: the .npz file of the evaluation.

    Returns:
        Pixels of all images by label (rows) and prediction (columns), int64 [num_classes, num_classes].
    """
    with np.load(arrays) as stored:
        return stored[CONFUSION]


def read_image_metrics(arrays: Path, name: str = "counts") -> ImageMetrics | None:
    """Compute the means over images of an evaluation or of a trial from its counts.

    Args:
        arrays: the .npz file of the evaluation, or with the counts of the trial.
        name: name of the counts in the file.

    Returns:
        The means; None if the file does not exist.
    """
    if not is_file(arrays):
        return None
    with np.load(arrays) as stored:
        return compute_image_metrics(stored[name])


def _is_intact(arrays: Path) -> bool:
    """Return whether a file has all arrays of an evaluation; earlier versions wrote no confusion matrix."""
    try:
        return CONFUSION in read_arrays(arrays, None)
    except DamageError:
        return False


def find_other_precision(record: Record, evaluation: Evaluation) -> Precision | None:
    """Return the precision of a record if an evaluation of its trial has another one.

    Args:
        record: record of the trial.
        evaluation: the evaluation.

    Returns:
        The precision of the record; None if it is the same or unknown.
    """
    recorded = record.environment.precision if record.environment is not None else None
    return recorded if recorded != evaluation.precision else None


def _check_data(finished: FinishedTrial, lab: Lab, target: EvaluationTarget | None) -> str | None:
    """Check that the data fits the trial, and return the fingerprint of a target, None for the reported split."""
    if target is None:
        _check_unchanged(finished, lab)
        return None
    dataset = lab.open_dataset(target.config)
    _check_classes(finished.record.classes, dataset.classes, target.dataset)
    trained, channels = finished.trial.dataset.image_channels, dataset.image_format.channels
    if trained != channels:
        raise DataError(
            f"dataset {target.dataset}: its images have {channels} channels, those of the trial have {trained}"
        )
    files = dataset.fingerprint((target.split,))
    return f"{files} {dataset.code}" if dataset.code else files  # other code may decode other labels from these files


def _check_unchanged(finished: FinishedTrial, lab: Lab) -> None:
    """Raise an error if the files of the trial's dataset or its code have changed since the trial was run."""
    trial = finished.trial
    code = lab.extensions.fingerprints(trial.variant.head, trial.dataset).get("dataset")
    if code != trial.extensions.get("dataset"):
        changed = f"the code of dataset type '{trial.dataset.type}'"
    elif lab.open_dataset(trial.dataset).fingerprint(trial.dataset.used_splits) != trial.data:
        changed = f"the dataset '{trial.names.get('dataset', trial.dataset.type)}'"
    else:
        return
    raise DataError(
        f"{finished.folder.path}: {changed} has changed since the trial was run, so its metrics would not be "
        "comparable; run the trial again"
    )


def _check_classes(trained: Sequence[str], classes: Sequence[str], name: str) -> None:
    """Raise an error if the classes of a dataset are not those on which a trial was trained."""
    if tuple(trained) == tuple(classes):
        return
    only_trained, only_dataset = _join_names(trained, without=classes), _join_names(classes, without=trained)
    differences = [f"only the trial has {only_trained}"] if only_trained else []
    differences += [f"only the dataset has {only_dataset}"] if only_dataset else []
    raise DataError(
        f"dataset {name}: its {len(classes)} classes are not the {len(trained)} that the trial was trained on: "
        + ("; ".join(differences) or "they have another order")
    )


def _join_names(classes: Sequence[str], *, without: Sequence[str], limit: int = 6) -> str:
    return list_some([name for name in classes if name not in without], limit)


def _read(file: Path) -> Evaluation | None:
    try:
        return Evaluation.model_validate_json(read_shared(file))
    except (OSError, ValidationError):
        return None
