"""From counts to the scores that a record keeps."""

from __future__ import annotations

import numpy as np

from fcnlab.metrics.confusion import Counts, compute_metrics
from fcnlab.trial.record import CheckpointChoice, SplitMetrics


def compute_split_metrics(
    split: str, checkpoint: CheckpointChoice, epoch: int, counts: Counts, boundary: Counts
) -> SplitMetrics:
    """The figures of a split's counts [N, C, 3] and of the counts of its boundaries."""
    of = compute_metrics(counts)
    return SplitMetrics(
        split=split,
        checkpoint=checkpoint,
        epoch=epoch,
        images=len(counts),
        miou=nan_to_none(of.miou),
        pixel_acc=nan_to_none(of.pixel_acc),
        mean_acc=nan_to_none(of.mean_acc),
        fw_iou=nan_to_none(of.fw_iou),
        class_iou=tuple(map(nan_to_none, of.class_iou)),
        boundary_iou=nan_to_none(compute_metrics(boundary).miou),
    )


def nan_to_none(value: float) -> float | None:
    """JSON has no nan: a figure that is not there is None."""
    return None if np.isnan(value) else value
