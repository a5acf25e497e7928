"""Confusion counts as users of torchmetrics and of numpy take them, batch by batch over a split."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from torch import Tensor
from torchmetrics.classification import MulticlassConfusionMatrix

IGNORE = 255

Batch = tuple[Tensor, Tensor]
"""Predictions and labels, int64 [B, H, W], as argmax and a criterion have them."""


def torchmetrics_counts(batches: Iterable[Batch], classes: int) -> Tensor:
    metric = MulticlassConfusionMatrix(num_classes=classes, ignore_index=IGNORE)
    for predictions, labels in batches:
        metric.update(predictions, labels)
    return metric.compute()


def numpy_counts(batches: Iterable[Batch], classes: int) -> np.ndarray:
    # The `fast_hist` of the FCN authors' own repository and of many since.
    hist = np.zeros((classes, classes), dtype=np.int64)
    for predictions, labels in batches:
        a, b = labels.numpy().flatten(), predictions.numpy().flatten()
        k = (a >= 0) & (a < classes)
        hist += np.bincount(classes * a[k].astype(int) + b[k], minlength=classes**2).reshape(classes, classes)
    return hist


def numpy_fused_counts(batches: Iterable[Batch], classes: int) -> np.ndarray:
    # Without a mask: what is ignored falls into a row that is cut off. uint8 in, as a careful user stores them.
    hist = np.zeros((classes + 1, classes), dtype=np.int64)
    for predictions, labels in batches:
        key = np.minimum(labels.numpy(), classes).astype(np.uint16)
        key *= classes
        key += predictions.numpy()
        hist += np.bincount(key.ravel(), minlength=(classes + 1) * classes).reshape(classes + 1, classes)
    return hist[:classes]
