"""Boundary IoU: how well the outlines of the classes are met.

Cheng, Girshick, Dollár, Berg, Kirillov, "Boundary IoU: Improving Object-Centric Image Segmentation Evaluation",
CVPR 2021. The boundary of a mask is what of it lies within d pixels of its outline, d being 2 % of the image's
diagonal. The figure is the IoU of the boundaries of prediction and truth; for semantic segmentation intersection and
union are added up over the split for each class, as those of mIoU are.

As in the authors' code (`cv2.erode` with a 3x3 kernel, d times), distance is chessboard distance, and what lies outside
the image belongs to no mask. So a pixel is within d of its class's outline if and only if the window of 2d + 1 by
2d + 1 pixels around it holds anything but that class: one minimum and one maximum over such windows give the boundaries
of all classes at once.

The authors do not say what becomes of pixels that are ignored. Here predictions on them count nowhere, as in all other
figures: they belong to no class, in the prediction as in the label, so that a perfect prediction is worth 1.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from fcnlab.metrics.confusion import Counts, count_partial_areas

DIAGONAL = 0.02
"""d as a fraction of the diagonal; the authors' choice for COCO and Cityscapes."""

IGNORE = 255


def compute_boundary_width(height: int, width: int) -> int:
    """How many pixels deep a boundary is: 2 % of the diagonal, rounded as Python does, and 1 at least."""
    return max(1, round(DIAGONAL * float(np.hypot(height, width))))


def find_boundaries(labels: Tensor, d: int) -> Tensor:
    """Find the boundary pixels of labels on any device.

    Args:
        labels: uint8 [N, H, W]; 255 is ignored, and differs from every class.
        d: the depth of a boundary in pixels.

    Returns:
        bool [N, H, W]: whether a pixel is of a class and within `d` pixels of another class, of an ignored pixel or of
        the image's border.
    """
    around = F.pad(labels, (d, d, d, d), value=IGNORE)
    least, most = (_over_windows(extreme, around, 2 * d + 1) for extreme in (torch.minimum, torch.maximum))
    return (least != most) & (labels != IGNORE)


def _over_windows(extreme: Callable[[Tensor, Tensor], Tensor], values: Tensor, size: int) -> Tensor:
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


def count_boundaries(predictions: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Count the boundary pixels of images of one shape, on the device of the labels and without waiting for it.

    Args:
        predictions: uint8 [N, H, W], 0..C-1.
        labels: uint8 [N, H, W], 0..C-1 or 255.
        classes: C.

    Returns:
        `fcnlab.metrics.confusion.Counts` as a tensor, int64 [N, C, 3]; Boundary IoU is `figures(counts).miou` of them.
    """
    if labels.device.type == "cpu" and len(labels) > 1:  # one image at a time stays in the cache
        pairs = zip(predictions.split(1), labels.split(1), strict=True)
        return torch.cat([count_boundaries(*pair, classes) for pair in pairs])
    d = compute_boundary_width(*labels.shape[1:])
    predicted = predictions.masked_fill(labels == IGNORE, IGNORE)
    both = torch.cat((predicted, labels))
    ours, truth = both.masked_fill(~find_boundaries(both, d), classes).chunk(2)
    return count_partial_areas(ours, truth, classes)


def count_image_boundaries(prediction: NDArray[np.uint8], label: NDArray[np.uint8], classes: int) -> Counts:
    """Count the boundary pixels of one image, uint8 [H, W] twice -> int64 [C, 3]."""
    predictions, labels = (torch.from_numpy(np.ascontiguousarray(image))[None] for image in (prediction, label))
    return count_boundaries(predictions, labels, classes)[0].numpy()
