"""From counts to the scores that a record keeps."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from fcnlab.boundary import boundary_counts
from fcnlab.data.decoded import DecodedSplit
from fcnlab.metrics import Counts, figures
from fcnlab.trial.record import Choice, Scores


class BoundaryCounts:
    """Counts the boundaries of a split's images while `evaluate` tells their predictions.

    Attributes:
        counts: [N, classes, 3], in the order of the split.
    """

    def __init__(self, split: DecodedSplit, classes: int) -> None:
        self.counts: Counts = np.zeros((len(split), classes, 3), dtype=np.int64)
        self._split = split

    def __call__(self, index: int, prediction: Tensor) -> None:
        """Count image `index`, predicted as uint8 [H, W] on the CPU."""
        label = self._split[index].label.cpu().numpy()
        self.counts[index] = boundary_counts(prediction.numpy(), label, self.counts.shape[1])


def scores(split: str, choice: Choice, epoch: int, counts: Counts, boundary: Counts) -> Scores:
    """The figures of a split's counts [N, C, 3] and of the counts of its boundaries."""
    of = figures(counts)
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
        boundary_iou=number(figures(boundary).miou),
    )


def number(value: float) -> float | None:
    """JSON has no nan: a figure that is not there is None."""
    return None if np.isnan(value) else value
