"""Scoring at native size: labels are never resized, images never padded."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager

import numpy as np
import torch
from torch import Tensor, nn

from fcnlab.data.batches import normalised
from fcnlab.data.decoded import Decoded, DecodedSplit
from fcnlab.metrics import Counts, batch_counts
from fcnlab.training.predict import predictions, scores_under
from fcnlab.training.protocol import Protocol

Predictions = Callable[[int, Tensor], None]
"""Told the index and the prediction, uint8 [H, W], of every image."""

PLAIN = Protocol()
WAITING = 256
"""How many decoded images may wait for others of their shape."""

_Batch = list[tuple[int, Decoded]]


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
    protocol: Protocol = PLAIN,
) -> Counts:
    """Score every image of a split at its own size.

    Images of exactly one shape go through together, `batch` at the most, wherever they stand in the split.

    Returns:
        Counts [N, classes, 3], in the order of the split.
    """
    model.eval()
    counts = np.zeros((len(split), classes, 3), dtype=np.int64)
    for samples in _batches_of_one_shape(split, batch):
        indices = [index for index, _ in samples]
        # Stacked pixel by pixel, as samples lie in memory, so that the batch is in channels-last layout at once.
        images = torch.stack([sample.image.movedim(0, -1) for _, sample in samples]).movedim(-1, 1).to(device)
        labels = torch.stack([sample.label for _, sample in samples]).to(device)
        with autocast():
            scores = scores_under(protocol, model, normalised(images, mean, std))
        predicted = predictions(scores)
        counts[indices] = batch_counts(predicted, labels, classes)
        if on_prediction is not None:
            for index, prediction in zip(indices, predicted.cpu(), strict=True):
                on_prediction(index, prediction)
    return counts


def _batches_of_one_shape(split: DecodedSplit, batch: int) -> Iterator[_Batch]:
    """Yield samples with their indices, full batches as soon as there are any and what is left at the end.

    Each sample is asked for once. Where shapes are so many that too many samples wait, the fullest batch goes as it is.
    """
    waiting: dict[torch.Size, _Batch] = {}
    for index in range(len(split)):
        sample = split[index]
        group = waiting.setdefault(sample.label.shape, [])
        group.append((index, sample))
        if len(group) == batch:
            yield waiting.pop(sample.label.shape)
        elif sum(map(len, waiting.values())) > WAITING:
            yield waiting.pop(max(waiting, key=lambda shape: len(waiting[shape])))
    yield from waiting.values()
