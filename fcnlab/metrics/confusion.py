"""Pixel counts of each class in each image, and the metrics computed from them.

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
import torch
from numpy.typing import NDArray
from torch import Tensor

from fcnlab.kernels.switch import is_triton_available

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
        >>> labels = torch.tensor([[[0, 0, 1, 255]]], dtype=torch.uint8)
        >>> predictions = torch.tensor([[[0, 1, 1, 0]]], dtype=torch.uint8)
        >>> counts = count_areas(predictions, labels, classes=2)
        >>> compute_metrics(counts.numpy()).class_iou
        (0.5, 0.5)
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


def count_areas(predictions: Tensor, labels: Tensor, classes: int, *, masked: bool = True) -> Tensor:
    """Count the pixels of each class in images of one shape, on the device of the labels.

    The Triton kernel does not synchronize with the host.

    Args:
        predictions: uint8 [N, H, W], 0..C-1; without `masked` also C, which is no class.
        labels: uint8 [N, H, W], 0..C-1 or 255; without `masked` 0..C.
        classes: C.
        masked: count predictions only where the label is a class.

    Returns:
        `Counts` as a tensor, int64 [N, C, 3].
    """
    if is_triton_available(labels.device):
        from fcnlab.kernels.triton_counts import count_pixels

        return count_pixels(predictions, labels, classes, masked=masked)
    # Pixels of no class are counted in an additional row and column, which are then left out.
    if masked:
        joint = count_joint(predictions, labels, classes, classes + 1)[:, :classes]
    else:
        joint = count_joint(predictions, labels, classes + 1, classes + 1)
    return torch.stack((joint.diagonal(dim1=1, dim2=2), joint.sum(1), joint.sum(2)), dim=2)[:, :classes]


def count_joint(predictions: Tensor, labels: Tensor, columns: int, rows: int) -> Tensor:
    """Count the pixels of each combination of label and prediction.

    All images are counted in one pass over one integer per pixel, which encodes image, label and prediction. Adjacent
    pixels fall into different lanes, which are summed at the end: adjacent pixels mostly have one class, and
    incrementing a bin that was just written is slow.

    Args:
        predictions: uint8 [N, H, W], below `columns`.
        labels: uint8 [N, H, W]; labels of `rows` - 1 and above share the last row.
        columns: number of predicted classes.
        rows: number of label classes.

    Returns:
        Counts int64 [N, rows, columns].
    """
    images, width = len(labels), labels.shape[-1]
    cells = rows * columns
    short = images * cells <= _MAX_INT16_KEYS
    lanes = min(_MAX_LANES, _MAX_INT16_KEYS // (images * cells)) if short and images else 1
    dtype = torch.int16 if short else torch.int32  # the keys are read and written several times
    key = labels.clamp(max=rows - 1).to(dtype).mul_(columns).add_(predictions)
    first = torch.arange(images * lanes, dtype=dtype, device=key.device).mul_(cells).view(images, 1, lanes)
    key += first.repeat(1, 1, -(-width // lanes))[:, :, :width]
    return torch.bincount(key.flatten(), minlength=images * lanes * cells).view(images, lanes, rows, columns).sum(1)


_MAX_INT16_KEYS = 2**15
_MAX_LANES = 8


def _ratio(part: NDArray[np.float64], whole: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return part / whole, and nan where whole is 0."""
    return np.divide(part, whole, out=np.full_like(part, np.nan), where=whole > 0)


def _mean(values: NDArray[np.float64]) -> float:
    """Return the mean over the values that are not nan."""
    valid = values[~np.isnan(values)]
    return float(valid.mean()) if valid.size else float("nan")
