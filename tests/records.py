"""Records and epochs that tests write instead of training."""

from __future__ import annotations

from typing import Any

from fcnlab.config.trial import Trial
from fcnlab.trial.record import Cost, Environment, EpochRecord, Failure, Record, SplitMetrics


def epochs(count: int, *, seconds: float = 1.0, miou: float | None = 0.5) -> list[EpochRecord]:
    return [
        EpochRecord(epoch=n, loss=1.0 / n, lr=0.1, images_per_s=9.0, seconds=seconds, val_miou=miou)
        for n in range(1, count + 1)
    ]


def finished(trial: Trial, *, miou: float = 0.5, seconds: float = 1.0, **environment: Any) -> Record:
    """Return the record of a finished trial, on a CPU unless `environment` sets another device."""
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
        epochs=tuple(epochs(count, seconds=seconds)),
        metrics=tuple(scores),
        cost=cost,
        environment=Environment(**(where | environment)),
    )


def failed(trial: Trial, message: str = "the disk is full") -> Record:
    return Record.create(trial, "failed", failure=Failure(cause="exception", message=message))
