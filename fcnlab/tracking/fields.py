"""Metrics and tags under which a record is published."""

from __future__ import annotations

from fcnlab.trial.record import EpochRecord, Record

COST_METRICS = (
    "params",
    "trainable_params",
    "gmacs",
    "train_seconds",
    "evaluate_seconds",
    "images_per_s",
    "peak_memory",
)
"""Fields of a record's cost that are published as metrics."""


def extract_metrics(record: Record, checkpoint: str) -> dict[str, float]:
    """Return the metrics of a record by their names in MLflow.

    `miou` and `pixel_acc` are the reported ones: on the reported split, at the grid's checkpoint. `val_miou`,
    `test_miou` and so on are of the last epoch, `val_miou_best` and so on of the epoch that is best on val.

    Args:
        record: record of a trial.
        checkpoint: the grid's checkpoint, `last` or `best`.

    Returns:
        Accuracies as fractions of 1, and the cost.
    """
    found: dict[str, float | None] = {}
    for metrics in record.metrics:
        suffix = "_best" if metrics.checkpoint == "best" else ""
        for name in ("miou", "pixel_acc", "mean_acc", "fw_iou"):
            found[f"{metrics.split}_{name}{suffix}"] = getattr(metrics, name)
        if metrics.checkpoint == "best":
            found["best_epoch"] = metrics.epoch
    reported = record.find_metrics(record.report_split, checkpoint)
    if reported is not None:
        found |= {"miou": reported.miou, "pixel_acc": reported.pixel_acc}
    if record.cost is not None:
        found |= {name: getattr(record.cost, name) for name in COST_METRICS}
    return {name: float(value) for name, value in found.items() if value is not None}


def extract_epoch_metrics(epoch: EpochRecord) -> dict[str, float]:
    """Return the metrics of one epoch by their names in MLflow.

    Args:
        epoch: measurements of the epoch.

    Returns:
        The metrics; without those of val if the epoch was not validated.
    """
    values = {
        "epoch_loss": epoch.loss,
        "epoch_lr": epoch.lr,
        "epoch_images_per_s": epoch.images_per_s,
        "epoch_val_miou": epoch.val_miou,
        "epoch_val_pixel_acc": epoch.val_pixel_acc,
    }
    return {name: value for name, value in values.items() if value is not None}


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
            "fcnlab.sharing": str(environment.sharing),
            "fcnlab.system": environment.system,
            "fcnlab.versions": versions,
            "fcnlab.data": str(record.trial["data"]),
        }
        if environment.commit:
            tags["mlflow.source.git.commit"] = environment.commit
    if record.failure is not None:
        tags |= {"fcnlab.failure": record.failure.message, "fcnlab.cause": record.failure.cause}
    return tags
