"""Pixel counts of each class in each image, and of each combination of label and prediction."""

from __future__ import annotations

import torch
from torch import Tensor

from fcnlab.kernels.switch import is_triton_available


def count_areas(predictions: Tensor, labels: Tensor, num_classes: int, *, masked: bool = True) -> Tensor:
    """Count the pixels of each class in images of one shape, on the device of the labels.

    The Triton kernel does not synchronize with the host.

    Args:
        predictions: uint8 [N, H, W], 0..num_classes-1; without `masked` also num_classes for no class.
        labels: uint8 [N, H, W], 0..num_classes-1 or 255; without `masked` 0..num_classes.
        num_classes: number of classes.
        masked: count predictions only where the label is a class.

    Returns:
        `fcnlab.metrics.summary.Counts` as a tensor, int64 [N, num_classes, 3].
    """
    if is_triton_available(labels.device):
        from fcnlab.kernels.triton_counts import count_pixels

        return count_pixels(predictions, labels, num_classes, masked=masked)
    # Pixels of no class are counted in an additional row and column, which are then left out.
    if masked:
        joint = count_joint(predictions, labels, num_classes, num_classes + 1)[:, :num_classes]
    else:
        joint = count_joint(predictions, labels, num_classes + 1, num_classes + 1)
    return torch.stack((joint.diagonal(dim1=1, dim2=2), joint.sum(1), joint.sum(2)), dim=2)[:, :num_classes]


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
