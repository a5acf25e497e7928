"""Score a finished trial again from its saved weights, under a protocol; apart from what its record says.

runs/<key>/scores/
    <protocol>[-best].json    the figures, and what they were made from
    <protocol>[-best].npz     counts [N, classes, 3] of the reported split, those of its boundaries, and the ids
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors.torch import load_file
from torch import Tensor

from fcnlab.data.decoded import open_decoded
from fcnlab.data.fingerprint import file_digest
from fcnlab.errors import DataError, RunError
from fcnlab.models import FCN
from fcnlab.places import Lab
from fcnlab.spec.trial import Trial
from fcnlab.training import hardware
from fcnlab.training.evaluate import evaluate
from fcnlab.training.protocol import Protocol, Size
from fcnlab.trial.build import build_model
from fcnlab.trial.record import Record, RunFolder, Scores, write_whole
from fcnlab.trial.scoring import BoundaryCounts, scores

Choice = Literal["last", "best"]
Progress = Callable[[int, int], None]
"""Told how many images are done, of how many."""


class ProtocolScores(BaseModel):
    """The figures of one trial under one protocol, and what they were made from.

    `weights` is the digest of the file with the weights; `seconds_per_image` wall-clock, with decoding.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="null")

    key: str
    name: str
    scales: tuple[float, ...]
    flip: bool
    window: Size | None
    stride: Size | None
    weights: str
    scores: Scores
    seconds_per_image: float
    device: str
    precision: Literal["fp32", "bf16"]
    threads: int
    ended: str


def read_trial(folder: RunFolder, lab: Lab) -> Trial:
    """The trial of a run folder, checked against the data that is there now.

    Raises:
        RunError: it has not been run here, or was run by a version whose trials are no longer understood.
        DataError: the dataset is not the one that it was run on.
    """
    try:
        trial = Trial.model_validate_json(folder.trial.read_bytes())
    except OSError:
        raise RunError(f"{folder.path}: no trial was run here") from None
    except ValidationError as error:
        raise RunError(f"{folder.trial}: not a trial as this version knows it ({error.error_count()} faults)") from None
    data = lab.dataset(trial.dataset).fingerprint(trial.dataset.used_splits)
    if data != trial.data:
        raise DataError(
            f"{folder.path}: the dataset '{trial.names.get('dataset', trial.dataset.type)}' is no longer what the "
            "trial was run on, so its figures could not be compared; run the trial again"
        )
    return trial


def rescore(
    trial: Trial, record: Record, lab: Lab, protocol: Protocol, choice: Choice, told: Progress | None = None
) -> ProtocolScores:
    """Score the reported split under a protocol; what was scored so before, with the same weights, is only read.

    Raises:
        RunError: the weights are no longer there.
    """
    folder = RunFolder(lab.runs, trial.key)
    plain = record.score(trial.report_split, choice)
    assert plain is not None, "a finished trial has scored the split that it reports"
    weights = folder.best_weights if choice == "best" and plain.epoch != trial.recipe.epochs else folder.weights
    if not weights.is_file():
        raise RunError(f"{weights}: the weights are no longer there; run the trial again to score it")
    digest = file_digest(weights)
    stem = protocol.slug + ("-best" if choice == "best" else "")
    file, arrays = folder.scores / f"{stem}.json", folder.scores / f"{stem}.npz"
    device = hardware.device()
    precision = hardware.resolve_precision(trial.recipe.precision, device)
    known = _read(file)
    if known is not None and known.weights == digest and known.precision == precision and arrays.is_file():
        return known

    asked = protocol.times(trial.recipe.score_scale)
    seconds, counted = _score(trial, lab, _load(trial, lab, weights, device), asked, precision, told)
    made = ProtocolScores(
        key=trial.key,
        name=str(protocol),
        scales=protocol.scales,
        flip=protocol.flip,
        window=protocol.window,
        stride=protocol.stride,
        weights=digest,
        scores=scores(plain.split, choice, plain.epoch, counted["counts"], counted["boundary"]),
        seconds_per_image=seconds,
        device=hardware.name(device),
        precision=precision,
        threads=torch.get_num_threads(),
        ended=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    folder.scores.mkdir(exist_ok=True)
    write_whole(arrays, lambda to: np.savez_compressed(to, **counted))
    write_whole(file, lambda to: to.write(made.model_dump_json(indent=1).encode()))
    return made


def _load(trial: Trial, lab: Lab, weights: Path, device: torch.device) -> FCN:
    """The trial's model with these weights. Those that its backbone started from are not read: these replace them."""
    backbone = trial.variant.backbone.model_copy(update={"weights": "scratch"})
    variant = trial.variant.model_copy(update={"backbone": backbone})
    model = build_model(variant, len(lab.dataset(trial.dataset).classes), trial.seed)
    model.load_state_dict(load_file(weights))
    return model.to(device).to(memory_format=torch.channels_last)


def _score(
    trial: Trial, lab: Lab, model: FCN, protocol: Protocol, precision: hardware.Precision, told: Progress | None
) -> tuple[float, dict[str, Any]]:
    """Seconds an image, and the arrays that are kept."""
    dataset, splits = lab.dataset(trial.dataset), trial.dataset.splits
    split = open_decoded(dataset, splits.test or splits.val)
    boundaries, done = BoundaryCounts(split, len(dataset.classes)), 0
    device = next(model.parameters()).device

    def on_prediction(index: int, prediction: Tensor) -> None:
        nonlocal done
        boundaries(index, prediction)
        done += 1
        if told is not None:
            told(done, len(split))

    began = time.perf_counter()
    counts = evaluate(
        model,
        split,
        classes=len(dataset.classes),
        mean=model.backbone.mean,
        std=model.backbone.std,
        device=device,
        autocast=hardware.autocast(device, precision),
        on_prediction=on_prediction,
        protocol=protocol,
    )
    seconds = (time.perf_counter() - began) / len(split)
    return seconds, {"counts": counts, "boundary": boundaries.counts, "ids": np.array(split.ids)}


def _read(file: Path) -> ProtocolScores | None:
    try:
        return ProtocolScores.model_validate_json(file.read_bytes())
    except (OSError, ValidationError):
        return None
