"""Metrics of a split, computed from the pixel counts of each class in each image. Does not import torch.

The metrics are those of Long et al., CVPR 2015, section 5, over all pixels of a split at once, not a mean over images;
`compute_image_metrics` has the means over images.
With n_ij the pixels of class i predicted as j, t_i = sum_j n_ij and p_i = sum_j n_ji:

    pixel accuracy          sum_i n_ii / sum_i t_i
    mean accuracy           mean of n_ii / t_i over the labeled classes
    mean IoU                mean of IoU_i = n_ii / (t_i + p_i - n_ii) over the labeled classes
    frequency-weighted IoU  sum_i t_i IoU_i / sum_i t_i
    mean Dice               mean of Dice_i = 2 n_ii / (t_i + p_i) over the labeled classes; see `iou_to_dice`

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
"""Pixels of intersection n_ii, prediction p_i and label t_i, [..., num_classes, 3]."""

Floats = NDArray[np.float64]


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
        counts: int64 [N, num_classes, 3] of its images, or their sum [num_classes, 3].

    Returns:
        The metrics over all images.

    Example:
        >>> counts = np.array([[[2, 2, 3], [1, 2, 1]]])
        >>> compute_metrics(counts).class_iou
        (0.6666666666666666, 0.5)
    """
    total = np.asarray(counts, dtype=np.int64).reshape(-1, counts.shape[-2], 3).sum(0)
    hit, _, target = total.T.astype(np.float64)
    iou = compute_class_iou(total)
    weight = divide(target, np.full_like(target, target.sum()))
    return Metrics(
        miou=float(mean_over_classes(iou)),
        pixel_acc=float(divide(hit.sum()[None], target.sum()[None])[0]),
        mean_acc=float(mean_over_classes(divide(hit, target))),
        fw_iou=float(np.nansum(weight * iou)) if target.any() else float("nan"),
        class_iou=tuple(iou.tolist()),
    )


def compute_class_iou(totals: Counts | Floats) -> Floats:
    """Compute the IoU of each class from summed counts.

    Args:
        totals: intersection, prediction and target in pixels, [..., num_classes, 3].

    Returns:
        IoU [..., num_classes], float64; nan for a class without a labeled pixel.

    Example:
        >>> compute_class_iou(np.array([[50, 80, 70], [0, 10, 0]])).tolist()
        [0.5, nan]
    """
    hit, predicted, target = np.moveaxis(np.asarray(totals, dtype=np.float64), -1, 0)
    return divide(hit, np.where(target > 0, predicted + target - hit, 0.0))


def iou_to_dice(iou: Floats) -> Floats:
    """Compute the Dice coefficient, which is the F1 score, from the IoU.

    Both are functions of the same counts over all pixels of a split: Dice_i = 2 n_ii / (t_i + p_i) = 2 IoU_i / (1 +
    IoU_i), without an approximation. A mean over classes is that of their Dice coefficients.

    Args:
        iou: IoU of classes, [...].

    Returns:
        Dice coefficients [...]; nan where the IoU is.

    Example:
        >>> iou_to_dice(np.array([0.5, 1.0, np.nan])).tolist()
        [0.6666666666666666, 1.0, nan]
    """
    return 2 * iou / (1 + iou)


def mean_over_classes(values: Floats) -> Floats:
    """Average over the classes that are not nan; the mean of the IoU is the mIoU.

    Args:
        values: [..., num_classes].

    Returns:
        [...]; nan where all classes are nan.

    Example:
        >>> mean_over_classes(np.array([[0.5, np.nan, 0.7], [np.nan] * 3])).tolist()
        [0.6, nan]
    """
    # Classes that are nan everywhere are left out, so that the mean of one split equals that of many in every bit.
    labeled = ~np.isnan(values).all(axis=tuple(range(values.ndim - 1)))
    values = np.compress(labeled, values, axis=-1)
    valid = ~np.isnan(values)
    return divide(np.where(valid, values, 0.0).sum(-1), valid.sum(-1).astype(np.float64))


def compute_image_miou(counts: Counts) -> Floats:
    """Compute the mIoU of each image over the classes labeled in it.

    It is not related to the mIoU of a split, which is computed from summed counts.

    Args:
        counts: [images, num_classes, 3].

    Returns:
        [images], float64.
    """
    return mean_over_classes(compute_class_iou(counts))


@dataclass(frozen=True)
class ImageMetrics:
    """Means over images of metrics that are computed for each image, as fractions of 1.

    Attributes:
        miou: mean over the images of `compute_image_miou`.
        dice: the same of the Dice coefficient.
        class_iou: for each class, mean IoU over the images in which it is labeled; nan for a class without such images.
        class_dice: the same of the Dice coefficient.
    """

    miou: float
    dice: float
    class_iou: tuple[float, ...]
    class_dice: tuple[float, ...]


def compute_image_metrics(counts: Counts) -> ImageMetrics:
    """Compute the means over images of the IoU and the Dice coefficient of each image.

    An image without a labeled pixel of a class has no IoU of this class, also if pixels are predicted as this class:
    these lower the IoU of the classes with which they are labeled. An image without any labeled pixel is left out.

    Args:
        counts: int64 [images, num_classes, 3].

    Returns:
        The means.

    Example:
        >>> counts = np.array([[[2, 2, 4], [1, 3, 1]], [[3, 3, 3], [0, 0, 0]]])
        >>> compute_image_metrics(counts).class_iou  # the second image does not contain the second class
        (0.75, 0.3333333333333333)
    """
    iou = compute_class_iou(counts)
    dice = iou_to_dice(iou)  # before the means, since it is not linear
    return ImageMetrics(
        miou=float(_mean_over_images(mean_over_classes(iou))),
        dice=float(_mean_over_images(mean_over_classes(dice))),
        class_iou=tuple(_mean_over_images(iou).tolist()),
        class_dice=tuple(_mean_over_images(dice).tolist()),
    )


def _mean_over_images(values: Floats) -> Floats:
    """Average values [images, ...] over the images in which they are not nan."""
    return mean_over_classes(values.T)


def divide(part: Floats, whole: Floats) -> Floats:
    """Divide element by element.

    Args:
        part: [...].
        whole: [...].

    Returns:
        [...]; nan where `whole` is 0.
    """
    return np.divide(part, whole, out=np.full_like(part, np.nan), where=whole > 0)
