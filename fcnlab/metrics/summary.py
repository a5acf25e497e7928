"""Metrics of a split, computed from the pixel counts of each class in each image. Does not import torch.

The metrics are those of Long et al., CVPR 2015, section 5, over all pixels of a split at once, not a mean over images.
With n_ij the pixels of class i predicted as j, t_i = sum_j n_ij and p_i = sum_j n_ji:

    pixel accuracy          sum_i n_ii / sum_i t_i
    mean accuracy           mean of n_ii / t_i over the labeled classes
    mean IoU                mean of IoU_i = n_ii / (t_i + p_i - n_ii) over the labeled classes
    frequency-weighted IoU  sum_i t_i IoU_i / sum_i t_i

The labeled classes are those with a labeled pixel in the split, t_i > 0. They do not depend on the predictions, so the
means of all trials that are evaluated on a split are over the same classes. A class without a labeled pixel has no IoU
and no accuracy (nan); pixels that are predicted as such a class lower the IoU of the class with which they are labeled.
Ignored pixels are not counted, and neither are the predictions there. Without any labeled pixel all metrics are nan.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.int64]
"""Pixels of intersection n_ii, prediction p_i and label t_i, [..., classes, 3]."""


@dataclass(frozen=True)
class Metrics:
    """Metrics of a split, as fractions of 1.

    Attributes:
        miou: mean IoU over the labeled classes.
        pixel_acc: pixel accuracy.
        mean_acc: mean accuracy over the labeled classes.
        fw_iou: frequency-weighted IoU.
        class_iou: IoU of each class; nan for a class without a labeled pixel.
    """

    miou: float
    pixel_acc: float
    mean_acc: float
    fw_iou: float
    class_iou: tuple[float, ...]


def compute_metrics(counts: Counts) -> Metrics:
    """Compute the metrics of a split.

    Args:
        counts: int64 [N, C, 3] of its images, or their sum [C, 3].

    Returns:
        The metrics over all images.

    Example:
        >>> counts = np.array([[[2, 2, 3], [1, 2, 1]]])
        >>> compute_metrics(counts).class_iou
        (0.6666666666666666, 0.5)
    """
    total = np.asarray(counts, dtype=np.int64).reshape(-1, counts.shape[-2], 3).sum(0)
    hit, predicted, target = total.T.astype(np.float64)
    iou = np.where(target > 0, _ratio(hit, predicted + target - hit), np.nan)
    weight = _ratio(target, np.full_like(target, target.sum()))
    return Metrics(
        miou=_mean(iou),
        pixel_acc=float(_ratio(hit.sum()[None], target.sum()[None])[0]),
        mean_acc=_mean(_ratio(hit, target)),
        fw_iou=float(np.nansum(weight * iou)) if target.any() else float("nan"),
        class_iou=tuple(iou.tolist()),
    )


def _ratio(part: NDArray[np.float64], whole: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return part / whole, and nan where whole is 0."""
    return np.divide(part, whole, out=np.full_like(part, np.nan), where=whole > 0)


def _mean(values: NDArray[np.float64]) -> float:
    """Return the mean over the values that are not nan."""
    valid = values[~np.isnan(values)]
    return float(valid.mean()) if valid.size else float("nan")
