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

from fcnlab.kernels.switch import is_triton_available

Counts = NDArray[np.int64]
"""[..., classes, 3]: intersection n_ii, prediction p_i and target t_i, in pixels."""


@dataclass(frozen=True)
class Metrics:
    """What a split is scored; fractions of 1."""

    miou: float
    pixel_acc: float
    mean_acc: float
    fw_iou: float
    class_iou: tuple[float, ...]


def count_image(prediction: Tensor, label: Tensor, classes: int) -> Counts:
    """Count one image: predictions 0..C-1 and labels 0..C-1 or 255, both uint8 [H, W] -> int64 [C, 3]."""
    return count_batch(prediction[None], label[None], classes)[0]


def count_batch(predictions: Tensor, labels: Tensor, classes: int) -> Counts:
    """Return `count_areas` as an array, int64 [N, C, 3]."""
    return count_areas(predictions, labels, classes).cpu().numpy()


def count_areas(predictions: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Count the pixels of each class in images of one shape, on the device of the labels.

    With Triton nothing synchronises with the host; elsewhere, ignored pixels are counted in a row of their own and left
    out, so that no mask is needed.

    Args:
        predictions: uint8 [N, H, W], 0..C-1.
        labels: uint8 [N, H, W], 0..C-1 or 255.
        classes: C.

    Returns:
        `Counts` as a tensor, int64 [N, C, 3].
    """
    if is_triton_available(labels.device):
        from fcnlab.kernels.triton_counts import count_pixels

        return count_pixels(predictions, labels, classes, masked=True)
    return reduce_joint_counts(count_joint(predictions, labels, classes, classes + 1)[:, :classes])


def count_partial_areas(predictions: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Count as `count_areas`, where predictions and labels both may belong to no class.

    Args:
        predictions: uint8 [N, H, W], 0..C, where C is no class.
        labels: uint8 [N, H, W], likewise. Predictions count whatever the label is.
        classes: C.

    Returns:
        `Counts` as a tensor, int64 [N, C, 3].
    """
    if is_triton_available(labels.device):
        from fcnlab.kernels.triton_counts import count_pixels

        return count_pixels(predictions, labels, classes, masked=False)
    return reduce_joint_counts(count_joint(predictions, labels, classes + 1, classes + 1))[:, :classes]


def count_joint(predictions: Tensor, labels: Tensor, columns: int, rows: int) -> Tensor:
    """How many pixels of each image have which label and prediction: uint8 [N, H, W] twice -> int64 [N, rows, columns].

    Predictions are below `columns`; labels of `rows` - 1 and above share the last row. All images are counted in one
    pass over one integer a pixel that says image, label and prediction. Neighbours in a row fall into different
    lanes, which are added up at the end: a bin that was just written is slow to be written again, and neighbours
    mostly are of one class. The integer has 16 bits where that does, since it is read and written many times.
    """
    images, width = len(labels), labels.shape[-1]
    cells = rows * columns
    short = images * cells <= _SHORT
    lanes = min(_LANES, _SHORT // (images * cells)) if short and images else 1
    kind = torch.int16 if short else torch.int32
    key = labels.clamp(max=rows - 1).to(kind).mul_(columns).add_(predictions)
    first = torch.arange(images * lanes, dtype=kind, device=key.device).mul_(cells).view(images, 1, lanes)
    key += first.repeat(1, 1, -(-width // lanes))[:, :, :width]
    return torch.bincount(key.flatten(), minlength=images * lanes * cells).view(images, lanes, rows, columns).sum(1)


_SHORT = 2**15
_LANES = 8


def reduce_joint_counts(joint: Tensor) -> Tensor:
    """Return counts [N, C, 3] of a joint [N, C, C]: pixels that agree, that are predicted, that are labelled."""
    return torch.stack((joint.diagonal(dim1=1, dim2=2), joint.sum(1), joint.sum(2)), dim=2)


def compute_metrics(counts: Counts) -> Metrics:
    """The figures of a split from its counts [N, C, 3] or their sum [C, 3]."""
    total = np.asarray(counts, dtype=np.int64).reshape(-1, counts.shape[-2], 3).sum(0)
    hit, predicted, target = total.T.astype(np.float64)
    iou = _ratio(hit, predicted + target - hit)
    weight = _ratio(target, np.full_like(target, target.sum()))
    return Metrics(
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
