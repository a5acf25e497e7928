"""Boundary IoU: the IoU of the pixels near the outlines of each class.

Cheng, Girshick, Dollar, Berg, Kirillov, "Boundary IoU: Improving Object-Centric Image Segmentation Evaluation",
CVPR 2021. The boundary of a mask is the part of it within d pixels of its outline, with d 2 % of the image diagonal.
Boundary IoU is the IoU of the boundaries of prediction and label; for semantic segmentation, intersections and unions
are summed over the split for each class, as for mIoU.

As in the authors' code (`cv2.erode` with a 3x3 kernel, d times), the distance is the chessboard distance, and pixels
outside the image belong to no mask. So a pixel is within d of the outline of its class if and only if the window of
2d + 1 by 2d + 1 pixels around it contains anything but that class. One minimum and one maximum over such windows give
the boundaries of all classes at once.

The authors do not define ignored pixels. Here predictions on them are not counted, as in all other metrics: they
belong to no class, in the prediction as in the label, so that a perfect prediction has a Boundary IoU of 1.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fcnlab.constants import IGNORE_INDEX
from fcnlab.metrics.confusion import count_areas

DIAGONAL_FRACTION = 0.02
"""d as a fraction of the diagonal; the authors' choice for COCO and Cityscapes."""


def compute_boundary_width(height: int, width: int) -> int:
    """Compute the width d of boundaries in an image.

    Args:
        height: height of the image in pixels.
        width: width of the image in pixels.

    Returns:
        2 % of the diagonal in pixels, rounded half to even, at least 1.

    Example:
        >>> compute_boundary_width(480, 640)
        16
    """
    return max(1, round(DIAGONAL_FRACTION * float(np.hypot(height, width))))


def find_boundaries(labels: Tensor, d: int) -> Tensor:
    """Find the boundary pixels of labels on any device.

    Args:
        labels: uint8 [N, H, W]; 255 is ignored and differs from every class.
        d: width of a boundary in pixels.

    Returns:
        bool [N, H, W]: true where a pixel has a class and is within `d` pixels of another class, of an ignored pixel
        or of the image border.
    """
    padded = F.pad(labels, (d, d, d, d), value=IGNORE_INDEX)
    least, most = (_reduce_windows(extreme, padded, 2 * d + 1) for extreme in (torch.minimum, torch.maximum))
    return (least != most) & (labels != IGNORE_INDEX)


def _reduce_windows(extreme: Callable[[Tensor, Tensor], Tensor], values: Tensor, size: int) -> Tensor:
    """Return the extreme of every window of size x size, [N, H, W] -> [N, H - size + 1, W - size + 1].

    Windows grow by doubling, so that the work grows with the logarithm of the size.
    """
    for dim in (1, 2):
        reach = 1
        while reach < size:
            step = min(reach, size - reach)
            length = values.shape[dim] - step
            values = extreme(values.narrow(dim, 0, length), values.narrow(dim, step, length))
            reach += step
    return values


def count_boundaries(predictions: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Count the boundary pixels of images of one shape, on the device of the labels and without synchronization.

    Args:
        predictions: uint8 [N, H, W], 0..num_classes-1.
        labels: uint8 [N, H, W], 0..num_classes-1 or 255.
        num_classes: number of classes.

    Returns:
        `fcnlab.metrics.summary.Counts` as a tensor, int64 [N, num_classes, 3]. Boundary IoU is
        `compute_metrics(counts).miou`.
    """
    if labels.device.type == "cpu" and len(labels) > 1:  # a single image fits the processor's cache
        pairs = zip(predictions.split(1), labels.split(1), strict=True)
        return torch.cat([count_boundaries(*pair, num_classes) for pair in pairs])
    d = compute_boundary_width(*labels.shape[1:])
    predicted = predictions.masked_fill(labels == IGNORE_INDEX, IGNORE_INDEX)
    both = torch.cat((predicted, labels))
    prediction_boundary, label_boundary = both.masked_fill(~find_boundaries(both, d), num_classes).chunk(2)
    return count_areas(prediction_boundary, label_boundary, num_classes, masked=False)
