"""Scoring at native size: labels are never resized, images never padded."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from itertools import groupby

import numpy as np
import torch
from torch import Tensor, nn

from fcnlab.data.batches import normalised
from fcnlab.data.decoded import DecodedSplit
from fcnlab.metrics import Counts, image_counts

Predictions = Callable[[int, Tensor], None]
"""Told the index and the prediction, uint8 [H, W], of every image."""


@torch.inference_mode()
def evaluate(
    model: nn.Module,
    split: DecodedSplit,
    *,
    classes: int,
    mean: Sequence[float],
    std: Sequence[float],
    device: torch.device,
    autocast: Callable[[], AbstractContextManager[object]],
    batch: int = 4,
    on_prediction: Predictions | None = None,
) -> Counts:
    """Score every image of a split at its own size.

    Images that follow each other and have exactly one shape go through together, `batch` at the most.

    Returns:
        Counts [N, classes, 3], in the order of the split.
    """
    model.eval()
    counts = np.zeros((len(split), classes, 3), dtype=np.int64)
    for indices in _runs_of_one_shape(split, batch):
        samples = [split[index] for index in indices]
        images = torch.stack([sample.image for sample in samples]).to(device)
        with autocast():
            scores = model(normalised(images, mean, std).contiguous(memory_format=torch.channels_last))
        predictions = scores.argmax(1).to(torch.uint8)
        for index, sample, prediction in zip(indices, samples, predictions, strict=True):
            counts[index] = image_counts(prediction, sample.label.to(device), classes)
            if on_prediction is not None:
                on_prediction(index, prediction.cpu())
    return counts


def _runs_of_one_shape(split: DecodedSplit, batch: int) -> Iterator[list[int]]:
    for _, run in groupby(range(len(split)), key=lambda index: split[index].label.shape):
        indices = list(run)
        for start in range(0, len(indices), batch):
            yield indices[start : start + batch]
