"""From counts to the scores that a record keeps."""

from __future__ import annotations

import numpy as np

from fcnlab.metrics.confusion import Counts, compute_metrics
from fcnlab.trial.record import Choice, Scores


def scores(split: str, choice: Choice, epoch: int, counts: Counts, boundary: Counts) -> Scores:
    """The figures of a split's counts [N, C, 3] and of the counts of its boundaries."""
    of = compute_metrics(counts)
    return Scores(
        split=split,
        choice=choice,
        epoch=epoch,
        images=len(counts),
        miou=number(of.miou),
        pixel_acc=number(of.pixel_acc),
        mean_acc=number(of.mean_acc),
        fw_iou=number(of.fw_iou),
        class_iou=tuple(map(number, of.class_iou)),
        boundary_iou=number(compute_metrics(boundary).miou),
    )


def number(value: float) -> float | None:
    """JSON has no nan: a figure that is not there is None."""
    return None if np.isnan(value) else value
