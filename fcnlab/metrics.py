"""Per-image counts, and every figure derived from them; pure functions.

The figures are those of Long et al., CVPR 2015, section 5, over the whole split at once (not a mean of per-image
figures). With n_ij the pixels of class i predicted as j, t_i = sum_j n_ij, p_i = sum_j n_ji:

    pixel accuracy       sum_i n_ii / sum_i t_i
    mean class accuracy  mean over classes that occur of n_ii / t_i
    mean IoU             mean over classes with a union of n_ii / (t_i + p_i - n_ii)
    frequency-weighted   sum_i t_i IoU_i / sum_i t_i

Pixels that are ignored count nowhere, predictions on them included. A class that is predicted but absent counts as 0;
one that neither occurs nor is predicted is left out. Where nothing counts at all, a figure is nan.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Counts = NDArray[np.int64]
"""[..., classes, 3]: intersection n_ii, prediction p_i and target t_i, in pixels."""


@dataclass(frozen=True)
class Figures:
    """What a split is scored; fractions of 1."""

    miou: float
    pixel_acc: float
    mean_acc: float
    fw_iou: float
    class_iou: tuple[float, ...]


def image_counts(prediction: Tensor, label: Tensor, classes: int) -> Counts:
    """Count one image: predictions 0..C-1 and labels 0..C-1 or 255, both uint8 [H, W] -> int64 [C, 3].

    One integer key a pixel, ignored pixels in a row of their own: a single pass, without a mask.
    """
    key = label.clamp(max=classes).to(torch.int32).mul_(classes).add_(prediction)
    joint = torch.bincount(key.flatten(), minlength=(classes + 1) * classes).view(classes + 1, classes)[:classes]
    counts = torch.stack((joint.diagonal(), joint.sum(0), joint.sum(1)), dim=1)
    return counts.cpu().numpy()


def figures(counts: Counts) -> Figures:
    """The figures of a split from its counts [N, C, 3] or their sum [C, 3]."""
    total = np.asarray(counts, dtype=np.int64).reshape(-1, counts.shape[-2], 3).sum(0)
    hit, predicted, target = total.T.astype(np.float64)
    iou = _ratio(hit, predicted + target - hit)
    weight = _ratio(target, np.full_like(target, target.sum()))
    return Figures(
        miou=_mean(iou),
        pixel_acc=float(_ratio(hit.sum()[None], target.sum()[None])[0]),
        mean_acc=_mean(_ratio(hit, target)),
        fw_iou=float(np.nansum(weight * iou)) if target.any() else float("nan"),
        class_iou=tuple(iou.tolist()),
    )


def _ratio(part: NDArray[np.float64], whole: NDArray[np.float64]) -> NDArray[np.float64]:
    """Part / whole, and nan where there is nothing."""
    return np.divide(part, whole, out=np.full_like(part, np.nan), where=whole > 0)


def _mean(values: NDArray[np.float64]) -> float:
    """The mean over what is there."""
    there = values[~np.isnan(values)]
    return float(there.mean()) if there.size else float("nan")
