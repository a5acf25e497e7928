"""Confusion counts as users of torchmetrics and of numpy take them, batch by batch over a split."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from torch import Tensor
from torchmetrics.classification import MulticlassConfusionMatrix

IGNORE = 255

Batch = tuple[Tensor, Tensor]
"""Predictions and labels, int64 [B, H, W], as argmax and a criterion have them."""


def torchmetrics_counts(batches: Iterable[Batch], num_classes: int) -> Tensor:
    metric = MulticlassConfusionMatrix(num_classes=num_classes, ignore_index=IGNORE)
    for predictions, labels in batches:
        metric.update(predictions, labels)
    return metric.compute()


def numpy_counts(batches: Iterable[Batch], num_classes: int) -> np.ndarray:
    # The `fast_hist` of the FCN authors' own repository and of many since.
    hist = np.zeros((num_classes, num_classes), dtype=np.int64)
    for predictions, labels in batches:
        a, b = labels.numpy().flatten(), predictions.numpy().flatten()
        k = (a >= 0) & (a < num_classes)
        hist += np.bincount(num_classes * a[k].astype(int) + b[k], minlength=num_classes**2).reshape(
            num_classes, num_classes
        )
    return hist


def numpy_fused_counts(batches: Iterable[Batch], num_classes: int) -> np.ndarray:
    # Without a mask: what is ignored falls into a row that is cut off. uint8 in, as a careful user stores them.
    hist = np.zeros((num_classes + 1, num_classes), dtype=np.int64)
    for predictions, labels in batches:
        key = np.minimum(labels.numpy(), num_classes).astype(np.uint16)
        key *= num_classes
        key += predictions.numpy()
        hist += np.bincount(key.ravel(), minlength=(num_classes + 1) * num_classes).reshape(
            num_classes + 1, num_classes
        )
    return hist[:num_classes]
