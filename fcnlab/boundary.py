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
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fcnlab.metrics import Counts, diagonal_and_sums, joint_counts

DIAGONAL = 0.02
"""d as a fraction of the diagonal; the authors' choice for COCO and Cityscapes."""

IGNORE = 255

_Labels = NDArray[np.uint8]


def distance(height: int, width: int) -> int:
    """How many pixels deep a boundary is: 2 % of the diagonal, rounded as Python does, and 1 at least."""
    return max(1, round(DIAGONAL * float(np.hypot(height, width))))


def boundaries(labels: _Labels, d: int) -> NDArray[np.bool_]:
    """Where pixels [H, W] lie within `d` of another class or of the image's border; ignored pixels are a class here."""
    around = np.pad(labels, d, constant_values=IGNORE)
    least, most = (_over_windows(kind, around, 2 * d + 1) for kind in (np.minimum, np.maximum))
    outside = np.ones(labels.shape, dtype=np.bool_)
    outside[d : labels.shape[0] - d, d : labels.shape[1] - d] = False
    return outside | (least != most)


def _over_windows(extreme: Callable[..., Any], values: _Labels, size: int) -> _Labels:
    """The extreme of every window of size x size, [H, W] -> [H - size + 1, W - size + 1].

    Windows grow by doubling, so that the work grows with the logarithm of the size.
    """
    for axis in (0, 1):
        values = np.moveaxis(values, axis, 0)
        reach = 1
        while reach < size:
            step = min(reach, size - reach)
            values = extreme(values[: len(values) - step], values[step:])
            reach += step
        values = np.moveaxis(values, 0, axis)
    return values


def boundary_counts(prediction: _Labels, label: _Labels, classes: int) -> Counts:
    """Count the boundaries of one image: predictions 0..C-1 and labels 0..C-1 or 255, uint8 [H, W] -> int64 [C, 3].

    The figure is `figures(counts).miou` of these counts.
    """
    d = distance(*label.shape)
    predicted = np.where(label == IGNORE, np.uint8(IGNORE), prediction)
    # What is no boundary is of one class more, which is then left out.
    ours, truth = (np.where(boundaries(of, d) & (of != IGNORE), of, np.uint8(classes)) for of in (predicted, label))
    joint = joint_counts(torch.from_numpy(ours)[None], torch.from_numpy(truth)[None], classes + 1, classes + 1)
    return diagonal_and_sums(joint)[0, :classes]
