"""Metrics of a split as a record stores them."""

from __future__ import annotations

import numpy as np

from fcnlab.constants import CheckpointChoice
from fcnlab.metrics.summary import Counts, compute_metrics
from fcnlab.trial.record import SplitMetrics


def compute_split_metrics(
    split: str, checkpoint: CheckpointChoice, epoch: int, counts: Counts, boundary: Counts | None
) -> SplitMetrics:
    """Compute the metrics of a split.

    Args:
        split: role or name of the split.
        checkpoint: the evaluated checkpoint, `last` or `best`.
        epoch: the epoch of these weights.
        counts: int64 counts [N, num_classes, 3] of the images.
        boundary: int64 counts [N, num_classes, 3] of their boundaries; None if they were not counted.

    Returns:
        The metrics.
    """
    metrics = compute_metrics(counts)
    return SplitMetrics(
        split=split,
        checkpoint=checkpoint,
        epoch=epoch,
        images=len(counts),
        miou=nan_to_none(metrics.miou),
        pixel_acc=nan_to_none(metrics.pixel_acc),
        mean_acc=nan_to_none(metrics.mean_acc),
        fw_iou=nan_to_none(metrics.fw_iou),
        class_iou=tuple(map(nan_to_none, metrics.class_iou)),
        boundary_iou=nan_to_none(compute_metrics(boundary).miou) if boundary is not None else None,
    )


def nan_to_none(value: float) -> float | None:
    """Convert nan to None, because JSON has no nan.

    Args:
        value: a metric.

    Returns:
        The value, or None.
    """
    return None if np.isnan(value) else value
