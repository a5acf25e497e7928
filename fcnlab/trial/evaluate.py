"""Score a finished trial again from its saved weights, under a protocol or on other data; apart from its record.

runs/<key>/scores/
    [<dataset>-<split>-]<protocol>[-best].json    the figures, and what they were made from
    [<dataset>-<split>-]<protocol>[-best].npz     counts [N, classes, 3], those of the boundaries, and the images' ids

Without a dataset and a split in its name a file is of the split that the trial reports.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, ValidationError

from fcnlab.config.dataset import Dataset as DatasetConfig
from fcnlab.data.datasets.fingerprint import hash_file
from fcnlab.data.decoded import open_decoded
from fcnlab.errors import DataError, RunError
from fcnlab.lab import Lab
from fcnlab.models import FCN
from fcnlab.training import hardware
from fcnlab.training.evaluate import OnProgress, evaluate_split
from fcnlab.training.protocol import Protocol, Size
from fcnlab.trial.find import KEY_DIGITS, FinishedTrial
from fcnlab.trial.metrics import compute_split_metrics
from fcnlab.trial.record import CheckpointChoice, SplitMetrics
from fcnlab.trial.run_folder import write_atomically


class Evaluation(BaseModel):
    """The figures of one trial under one protocol, and what they were made from.

    `weights` is the digest of the file with the weights; `seconds_per_image` wall-clock, with decoding. `dataset` and
    `data`, the name and the fingerprint of what was scored, are None for the split that the trial reports.
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
    metrics: SplitMetrics
    seconds_per_image: float
    device: str
    precision: Literal["fp32", "tf32", "bf16", "fp16"]
    threads: int
    ended: str


@dataclass(frozen=True)
class Target:
    """A split that is scored: of another dataset than the trial's, or another split than it reports.

    Attributes:
        dataset: its name in the catalogue.
        spec: its entry there.
        split: the split's own name.
    """

    dataset: str
    spec: DatasetConfig
    split: str


def resolve_target(finished: FinishedTrial, lab: Lab, dataset: str | None, split: str | None) -> Target | None:
    """What is asked for by name; None where that is the split that the trial reports.

    Without a dataset it is the trial's own, without a split the one on which its dataset is reported.

    Raises:
        ConfigError: the catalogue has no such dataset.
    """
    own: DatasetConfig = finished.trial.dataset
    if dataset is None:
        name, spec = finished.trial.names.get("dataset", own.type), own
    else:
        found = lab.registry.get("dataset", dataset)
        assert isinstance(found, DatasetConfig)
        name, spec = dataset, found
    asked, reported = split or _reported(spec), _reported(own)
    return None if (spec.content(), asked) == (own.content(), reported) else Target(name, spec, asked)


def _reported(spec: DatasetConfig) -> str:
    return spec.splits.test or spec.splits.val


def evaluation_file(
    finished: FinishedTrial,
    protocol: Protocol,
    checkpoint: CheckpointChoice,
    target: Target | None = None,
    out: Path | None = None,
) -> Path:
    """Where the figures are kept: in the run folder, or in a folder of `out` that is named by the trial's key."""
    folder = out / finished.trial.key[:KEY_DIGITS] if out is not None else finished.folder.evaluations
    where = f"{target.dataset}-{target.split}-" if target is not None else ""
    return folder / (where + protocol.slug + ("-best" if checkpoint == "best" else "") + ".json")


def evaluate_trial(
    finished: FinishedTrial,
    lab: Lab,
    protocol: Protocol,
    checkpoint: CheckpointChoice,
    told: OnProgress | None = None,
    *,
    target: Target | None = None,
    out: Path | None = None,
) -> Evaluation:
    """Score a split under a protocol, by default the reported one; what was scored so before is only read.

    Raises:
        RunError: the weights are no longer there, or `out` cannot be written.
        DataError: the trial's data has changed, or the target's classes are others than the trial's.
    """
    data = _checked(finished, lab, target)
    weights = finished.weights_file(checkpoint)
    digest = hash_file(weights)
    file = evaluation_file(finished, protocol, checkpoint, target, out)
    arrays = file.with_suffix(".npz")
    device = hardware.select_device()
    precision = hardware.resolve_precision(finished.trial.recipe.precision, device)
    known = _read(file)
    if known is not None and arrays.is_file():
        made_from = (known.key, known.weights, known.precision, known.data)
        if made_from == (finished.trial.key, digest, precision, data):
            return known

    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"{file.parent}: cannot be written: {error.strerror}") from None
    model = finished.load_model(checkpoint).to(device).to(memory_format=torch.channels_last)
    spec, split = (target.spec, target.split) if target else (finished.trial.dataset, _reported(finished.trial.dataset))
    asked = protocol.multiply_scales(finished.trial.recipe.score_scale)
    seconds, counted = _score(model, lab, spec, split, asked, precision, told)
    plain = finished.reported_metrics(checkpoint)
    made = Evaluation(
        key=finished.trial.key,
        name=str(protocol),
        scales=protocol.scales,
        flip=protocol.flip,
        window=protocol.window,
        stride=protocol.stride,
        weights=digest,
        dataset=target.dataset if target else None,
        data=data,
        metrics=compute_split_metrics(
            split if target else plain.split, checkpoint, plain.epoch, counted["counts"], counted["boundary"]
        ),
        seconds_per_image=seconds,
        device=hardware.get_device_name(device),
        precision=precision,
        threads=torch.get_num_threads(),
        ended=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    write_atomically(arrays, lambda to: np.savez_compressed(to, **counted))
    write_atomically(file, lambda to: to.write(made.model_dump_json(indent=1).encode()))
    return made


def _checked(finished: FinishedTrial, lab: Lab, target: Target | None) -> str | None:
    """The fingerprint of a target whose classes are the trial's; None for the reported split, which is as it was."""
    trial = finished.trial
    if target is not None:
        dataset = lab.open_dataset(target.spec)
        _check_classes(finished.record.classes, dataset.classes, target.dataset)
        return dataset.fingerprint((target.split,))
    if lab.open_dataset(trial.dataset).fingerprint(trial.dataset.used_splits) != trial.data:
        raise DataError(
            f"{finished.folder.path}: the dataset '{trial.names.get('dataset', trial.dataset.type)}' is no longer what "
            "the trial was run on, so its figures could not be compared; run the trial again"
        )
    return None


def _check_classes(trained: Sequence[str], there: Sequence[str], name: str) -> None:
    """Refuse to count by number what is not the same by name."""
    if tuple(trained) == tuple(there):
        return
    ours, theirs = (_named(a, without=b) for a, b in ((trained, there), (there, trained)))
    differ = [f"only the trial has {ours}"] * bool(ours) + [f"only the dataset has {theirs}"] * bool(theirs)
    raise DataError(
        f"dataset {name}: its {len(there)} classes are not the {len(trained)} that the trial was trained on: "
        + ("; ".join(differ) or "they have another order")
    )


def _named(classes: Sequence[str], *, without: Sequence[str], shown: int = 6) -> str:
    names = [name for name in classes if name not in without]
    return ", ".join(names[:shown]) + (f" and {len(names) - shown} more" if len(names) > shown else "")


def _score(
    model: FCN,
    lab: Lab,
    spec: DatasetConfig,
    split_name: str,
    protocol: Protocol,
    precision: hardware.Precision,
    told: OnProgress | None,
) -> tuple[float, dict[str, Any]]:
    """Seconds an image, and the arrays that are kept."""
    dataset = lab.open_dataset(spec)
    split = open_decoded(dataset, split_name)
    device = next(model.parameters()).device
    began = time.perf_counter()
    counts = evaluate_split(
        model,
        split,
        classes=len(dataset.classes),
        mean=model.backbone.mean,
        std=model.backbone.std,
        device=device,
        autocast=hardware.create_autocast(device, precision),
        boundaries=True,
        on_progress=told,
        protocol=protocol,
    )
    seconds = (time.perf_counter() - began) / len(split)
    return seconds, {"counts": counts.areas, "boundary": counts.boundaries, "ids": np.array(split.ids)}


def _read(file: Path) -> Evaluation | None:
    try:
        return Evaluation.model_validate_json(file.read_bytes())
    except (OSError, ValidationError):
        return None
