"""Builders of cells, trials, plans and records, for tests that need one without describing all of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fcnlab.config.grid.cell import Cell, InputFingerprints
from fcnlab.config.grid.grid import resolve
from fcnlab.config.registry import Registry, builtin
from fcnlab.config.trial import Trial
from fcnlab.lab import Lab
from fcnlab.runner.plan import Plan, make_plan
from fcnlab.trial.record import Cost, Environment, EpochRecord, Failure, Record, SplitMetrics
from tests.conftest import SMOKE, write_grid

TINY = {
    "backbone": "tiny-scratch",
    "head": "fcn8s",
    "upsampler": "bilinear",
    "dataset": "shapes-mini",
    "recipe": "smoke",
}
"""A configuration that trains within a second."""

DATA = "sha256:" + 64 * "a"
"""Fingerprint of a dataset."""


def create_lab(folder: Path) -> Lab:
    """Create the folder of a lab.

    Args:
        folder: path of the folder, which does not exist.

    Returns:
        The empty lab.
    """
    folder.mkdir()
    return Lab.find(root=folder)


def build_cell(overrides: Mapping[str, Any] | None = None, *, registry: Registry | None = None, **recipe: Any) -> Cell:
    """Build a cell of the configuration `TINY`.

    Args:
        overrides: components and fields that differ from `TINY`, with keys as in a grid file.
        registry: registry of the names; by default the built-in one.
        recipe: fields of the recipe.

    Returns:
        The cell.
    """
    fields = {f"recipe.{name}": value for name, value in recipe.items()}
    return resolve({**TINY, **(overrides or {}), **fields}, registry or builtin(), "test")


def build_trial(
    overrides: Mapping[str, Any] | None = None,
    *,
    lab: Lab | None = None,
    seed: int = 0,
    data: str = DATA,
    weights: str | None = None,
    **recipe: Any,
) -> Trial:
    """Build a trial of the configuration `TINY`.

    Args:
        overrides: components and fields that differ from `TINY`, with keys as in a grid file.
        lab: lab with the registry and the data; without one, the registry is the built-in one.
        seed: seed of the trial.
        data: fingerprint of the dataset, for a trial without a lab.
        weights: fingerprint of the weights file, for a trial without a lab.
        recipe: fields of the recipe.

    Returns:
        The trial.
    """
    if lab is not None:
        return build_cell(overrides, registry=lab.registry, **recipe).trials([seed], lab.fingerprints)[0]
    return build_cell(overrides, **recipe).trials([seed], lambda *_: InputFingerprints(data, weights, {}))[0]


def build_plan(folder: Path, text: str = SMOKE) -> Plan:
    """Write a grid file to a lab and plan its trials.

    Args:
        folder: folder of the lab.
        text: content of the grid file.

    Returns:
        The plan.
    """
    path = write_grid(folder, text)
    lab = Lab.find(path)
    return make_plan(lab.load_grid(path), lab)


def epoch_records(count: int, *, seconds: float = 1.0, miou: float | None = 0.5) -> list[EpochRecord]:
    """Build the epochs of a trial.

    Args:
        count: number of epochs.
        seconds: seconds of each epoch.
        miou: mIoU on val after each epoch; None without validation.

    Returns:
        The epochs, whose losses decrease.
    """
    return [
        EpochRecord(epoch=n, loss=1.0 / n, lr=0.1, images_per_s=9.0, seconds=seconds, val_miou=miou)
        for n in range(1, count + 1)
    ]


def finished_record(trial: Trial, *, miou: float = 0.5, seconds: float = 1.0, **environment: Any) -> Record:
    """Build the record of a finished trial.

    Args:
        trial: the trial.
        miou: mIoU of all splits and checkpoints.
        seconds: seconds of each epoch.
        environment: fields of the environment that differ from those of a trial on the CPU.

    Returns:
        The record.
    """
    where = {
        "device": "a CPU (1 threads)", "precision": "fp32", "threads": 1, "repeatable": True, "system": "Linux",
        "versions": {"fcnlab": "0.1.0", "torch": "2.11.0"}, "commit": "0123456789ab",
    }  # fmt: skip
    count = trial.recipe.epochs
    scores = [
        SplitMetrics(
            split=split, checkpoint=checkpoint, epoch=count, images=4, miou=miou, pixel_acc=0.8,
            mean_acc=0.6, fw_iou=0.7, class_iou=(miou, miou),
        )
        for checkpoint in ("last", "best")
        for split in ("val", "test")
    ]  # fmt: skip
    cost = Cost(
        params=1000, trainable_params=1000, gmacs=0.1, gmacs_size=(64, 64), train_seconds=count * seconds,
        evaluate_seconds=0.5, images_per_s=9.0,
    )  # fmt: skip
    return Record.create(
        trial,
        "finished",
        epochs=tuple(epoch_records(count, seconds=seconds)),
        metrics=tuple(scores),
        cost=cost,
        environment=Environment(**(where | environment)),
    )


def failed_record(trial: Trial, message: str = "the disk is full") -> Record:
    """Build the record of a trial that ended with an exception.

    Args:
        trial: the trial.
        message: message of the exception.

    Returns:
        The record.
    """
    return Record.create(trial, "failed", failure=Failure(cause="exception", message=message))
