"""Metrics, tags and parameters under which a trial is published."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from fcnlab.config.grid.axes import format_value
from fcnlab.config.trial import Trial, list_fields
from fcnlab.redaction import clean_text, redact
from fcnlab.tracking.names import (
    ACCURACIES,
    COST_METRICS,
    MAX_CLASS_METRICS,
    PUBLISHED_NAMES,
    clean_names,
    shorten_run_name,
)
from fcnlab.trial.record import EpochRecord, Record, SplitMetrics

NOTE = (
    "Metrics of accuracy (miou, iou, pixel_acc, mean_acc, fw_iou, boundary_iou, dice) are fractions of 1; tables of "
    "fcnlab show them in percent. Times are in seconds, cost/peak_memory in bytes, system/ metrics in percent and "
    "megabytes."
)
"""Description of the units on the page of a run."""

TAG_LENGTH = 5000
"""Number of characters of a tag that are kept; MLflow refuses tags that are longer than 8000."""

MAX_PARAM_VALUE = 6000
"""Maximum length of the value of a parameter in MLflow."""


def clean_tag(value: str) -> str:
    """Return the value of a tag without secrets, with control characters escaped, and not longer than MLflow allows.

    Args:
        value: any text.
    """
    return clean_text(value)[:TAG_LENGTH]


def clean_run_name(value: str) -> str:
    """Return the name of a run without secrets, with control characters escaped, and not longer than MLflow allows.

    Args:
        value: any text.
    """
    return shorten_run_name(clean_text(value))


def extract_columns(record: Record, checkpoint: str) -> dict[str, float]:
    """Return the metrics of a record by the columns of the report's data frames.

    `miou` and `pixel_acc` are the reported ones: on the reported split, at the grid's checkpoint. `val_miou`,
    `test_miou` and so on are of the last epoch, `val_miou_best` and so on of the epoch that is best on val.

    Args:
        record: record of a trial.
        checkpoint: the grid's checkpoint, `last` or `best`.

    Returns:
        Accuracies as fractions of 1, and the cost.
    """
    columns: dict[str, float | None] = {}
    for metrics in record.metrics:
        suffix = "_best" if metrics.checkpoint == "best" else ""
        columns |= {f"{metrics.split}_{name}{suffix}": getattr(metrics, name) for name in ACCURACIES}
        if metrics.checkpoint == "best":
            columns["best_epoch"] = metrics.epoch
    reported = record.find_metrics(record.report_split, checkpoint)
    if reported is not None:
        columns |= {"miou": reported.miou, "pixel_acc": reported.pixel_acc}
    if record.cost is not None:
        columns |= {name: getattr(record.cost, name) for name in COST_METRICS}
    return {name: float(value) for name, value in columns.items() if value is not None}


def extract_final_metrics(record: Record, checkpoint: str) -> dict[str, float]:
    """Return the metrics that a trial has at its end and that are not the last point of a curve over epochs.

    They are the columns, and for datasets with few classes the IoU of each class: of the last epoch as
    `val/iou/<class>`, and where the grid reports the best epoch, of that as `val/iou_best/<class>`.

    Args:
        record: record of a trial.
        checkpoint: the grid's checkpoint, `last` or `best`.

    Returns:
        Metrics by the names under which they are published.
    """
    columns = extract_columns(record, checkpoint)
    published = {PUBLISHED_NAMES[column]: value for column, value in columns.items()}
    for metrics in record.metrics:
        if metrics.checkpoint in ("last", checkpoint):
            suffix = "_best" if metrics.checkpoint == "best" else ""
            published |= _extract_class_iou(record, metrics, f"{metrics.split}/iou{suffix}")
    curves = {name for epoch in record.epochs for name in extract_epoch_metrics(epoch)}
    return {name: value for name, value in published.items() if name not in curves}


def find_reported_metrics(published: Mapping[str, float], split: str, checkpoint: str) -> dict[str, float]:
    """Return the metrics that a grid reports from all metrics of a run.

    Args:
        published: the metrics of the run by name.
        split: the reported split.
        checkpoint: the grid's checkpoint, `last` or `best`.

    Returns:
        `miou` and `pixel_acc`, without those that the run does not have at this checkpoint.
    """
    suffix = "_best" if checkpoint == "best" else ""
    names = {name: f"{split}/{name}{suffix}" for name in ("miou", "pixel_acc")}
    return {name: published[source] for name, source in names.items() if source in published}


def _extract_class_iou(record: Record, metrics: SplitMetrics, prefix: str) -> dict[str, float]:
    """Return the IoU of each class that has labeled pixels; none if there are many classes."""
    if len(record.classes) > MAX_CLASS_METRICS:
        return {}
    names = clean_names(record.classes)
    pairs = zip(names, metrics.class_iou, strict=False)  # records of failed or old trials may have no class names
    return {f"{prefix}/{name}": iou for name, iou in pairs if iou is not None}


def extract_epoch_metrics(epoch: EpochRecord) -> dict[str, float]:
    """Return the metrics of one epoch by the names under which they are published.

    Args:
        epoch: measurements of the epoch.

    Returns:
        The metrics; without those of val if the epoch was not validated.
    """
    values: dict[str, float | None] = {
        "train/loss": epoch.loss,
        "train/lr": epoch.lr,
        "train/images_per_s": epoch.images_per_s,
        "val/miou": epoch.val_miou,
        "val/pixel_acc": epoch.val_pixel_acc,
    }
    values |= {f"system/{name}": value for name, value in epoch.system.items()}
    return {name: value for name, value in values.items() if value is not None}


def extract_points(epochs: Iterable[EpochRecord]) -> dict[int, dict[str, float]]:
    """Return the points of the curves of some epochs.

    Args:
        epochs: measurements of the epochs.

    Returns:
        Metrics by name, by step: by the number of the epoch, and `train/loss_step` by the number of the training step.
    """
    points: dict[int, dict[str, float]] = {}
    for epoch in epochs:
        points.setdefault(epoch.epoch, {}).update(extract_epoch_metrics(epoch))
        for step, loss in epoch.step_losses:
            points.setdefault(step, {})["train/loss_step"] = loss
    return points


def extract_tags(record: Record) -> dict[str, str]:
    """Return the tags of a record: its environment, and the failure of a failed trial.

    Args:
        record: record of a trial.

    Returns:
        The tags by name.
    """
    tags = {"fcnlab.report_split": record.report_split}
    if record.environment is not None:
        environment = record.environment
        versions = " ".join(f"{name} {version}" for name, version in environment.versions.items())
        tags |= {
            "fcnlab.device": environment.hardware,
            "fcnlab.precision": environment.precision,
            "fcnlab.threads": str(environment.threads),
            "fcnlab.devices": str(environment.devices),
            "fcnlab.trials_per_device": str(environment.trials_per_device),
            "fcnlab.system": environment.system,
            "fcnlab.versions": versions,
            "fcnlab.data": str(record.trial["data"]),
        }
        if environment.commit:
            tags["mlflow.source.git.commit"] = environment.commit
    if record.failure is not None:
        tags |= {"fcnlab.failure": record.failure.message, "fcnlab.cause": record.failure.cause}
    return tags


def extract_params(trial: Trial, axes: Mapping[str, str]) -> dict[str, str]:
    """Return the parameters of a trial.

    The names of its components come first (`head`, `recipe`, ...), then the axes of its grid and the seed, then each
    field of the components, named as an axis of a grid is: `head.stride`, `recipe.optimizer.lr`. Fields that are not
    set are `null`.

    Args:
        trial: the trial.
        axes: value of each axis of the grid.

    Returns:
        Texts by name.
    """
    flat = {path: value for path, value in list_fields(trial.model_dump(mode="json")).items() if value != {}}
    paths = list(dict.fromkeys([*flat, *axes]))
    names = dict(zip(paths, clean_names(paths), strict=True))  # names of classes and options may be any text
    params = {**trial.names, **{names[axis]: value for axis, value in axes.items()}, "seed": str(trial.seed)}
    if trial.init_from is not None:
        params["init_from"] = trial.init_from
    for path, value in flat.items():
        params.setdefault(names[path], _format(value))
    return {name: redact(value)[:MAX_PARAM_VALUE] for name, value in params.items()}


def _format(value: Any) -> str:
    if value is None:
        return "null"
    return ", ".join(map(_format, value)) if isinstance(value, list) else format_value(value)
