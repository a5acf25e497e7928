"""Evaluation at native size: labels are never resized, images never padded."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from fcnlab.data.batches import normalised
from fcnlab.data.decoded import Decoded, DecodedSplit
from fcnlab.metrics.boundary import count_boundaries
from fcnlab.metrics.confusion import Counts, count_areas
from fcnlab.training.inference import compute_scores, predict_classes
from fcnlab.training.protocol import Protocol

Predictions = Callable[[int, Tensor], None]
"""Told the index and the prediction, uint8 [H, W] on the CPU, of an image."""
Progress = Callable[[int, int], None]
"""Told how many images are evaluated, of how many."""

PLAIN = Protocol()
WAITING = 256
"""How many decoded images may wait for others of their shape."""
BATCH = 4
"""Images of one shape that are evaluated together on the CPU."""
CUDA_BATCH = 16
CUDA_PIXELS = 4 * 2**20
"""On CUDA, the largest number of images and of pixels (at the largest scale of the protocol) of a batch."""
CUDA_SCORES = 1.5e9
"""On CUDA, the largest size of the scores of a batch, in bytes of float32."""

_Batch = list[tuple[int, Decoded]]


class SplitCounts(NamedTuple):
    """Counts [N, classes, 3] of a split's images, and of their boundaries if those were asked for."""

    areas: Counts
    boundaries: Counts | None


def evaluate(
    model: nn.Module,
    split: DecodedSplit,
    *,
    classes: int,
    mean: Sequence[float],
    std: Sequence[float],
    device: torch.device,
    autocast: Callable[[], AbstractContextManager[object]],
    batch: int | None = None,
    on_prediction: Predictions | None = None,
    protocol: Protocol = PLAIN,
) -> Counts:
    """Return only the areas of `evaluate_split`, int64 [N, classes, 3]."""
    return evaluate_split(
        model,
        split,
        classes=classes,
        mean=mean,
        std=std,
        device=device,
        autocast=autocast,
        batch=batch,
        on_prediction=on_prediction,
        protocol=protocol,
    ).areas


@torch.inference_mode()
def evaluate_split(
    model: nn.Module,
    split: DecodedSplit,
    *,
    classes: int,
    mean: Sequence[float],
    std: Sequence[float],
    device: torch.device,
    autocast: Callable[[], AbstractContextManager[object]],
    batch: int | None = None,
    boundaries: bool = False,
    on_prediction: Predictions | None = None,
    predictions_of: Container[int] | None = None,
    progress: Progress | None = None,
    protocol: Protocol = PLAIN,
) -> SplitCounts:
    """Evaluate every image of a split at its own size.

    Images of exactly one shape are evaluated together, wherever they stand in the split. Counts are made on the device
    and copied to the host once, at the end, so that the device never waits for the host.

    Args:
        model: maps normalised images [B, 3, H, W] to scores [B, classes, H, W]; is put into eval mode.
        split: the samples, on the CPU or on the device.
        classes: number of classes.
        mean: of each channel, in 0..1.
        std: standard deviation of each channel, in 0..1.
        device: where the model is.
        autocast: makes the context in which the model runs.
        batch: the most images of a batch; by default `BATCH` on the CPU, and on CUDA as many as `CUDA_BATCH`,
            `CUDA_PIXELS` and `CUDA_SCORES` allow.
        boundaries: whether to count boundaries too.
        on_prediction: called with predictions as soon as they are made. On CUDA each batch with one of them is waited
            for.
        predictions_of: indices of the images whose predictions are wanted; by default all.
        progress: called after each image; on CUDA its work may not be done yet.
        protocol: windows, flips and scales.

    Returns:
        The counts, in the order of the split.
    """
    model.eval()
    order: list[int] = []
    areas: list[Tensor] = []
    edges: list[Tensor] = []
    for samples in _batches_of_one_shape(split, lambda label: batch or _batch_size(label, classes, protocol, device)):
        indices = [index for index, _ in samples]
        # Stacked pixel by pixel, as samples lie in memory, so that the batch is in channels-last layout at once.
        images = _stacked([sample.image.movedim(0, -1) for _, sample in samples], device).movedim(-1, 1)
        labels = _stacked([sample.label for _, sample in samples], device)
        with autocast():
            scores = compute_scores(protocol, model, normalised(images, mean, std))
        predicted = predict_classes(scores)
        areas.append(count_areas(predicted, labels, classes))
        if boundaries:
            edges.append(count_boundaries(predicted, labels, classes))
        if on_prediction is not None:
            wanted = [i for i, index in enumerate(indices) if predictions_of is None or index in predictions_of]
            there = predicted.cpu() if wanted else predicted
            for i in wanted:
                on_prediction(indices[i], there[i])
        if progress is not None:
            for done in range(len(order) + 1, len(order) + len(indices) + 1):
                progress(done, len(split))
        order += indices
    return SplitCounts(
        _in_order(areas, order, classes),
        _in_order(edges, order, classes) if boundaries else None,
    )


def _in_order(counts: list[Tensor], order: list[int], classes: int) -> Counts:
    """Bring counts [B, classes, 3] of batches to the host and into the order of the split."""
    ordered = np.zeros((len(order), classes, 3), dtype=np.int64)
    if counts:
        ordered[order] = torch.cat(counts).cpu().numpy()
    return ordered


def _batch_size(label: Tensor, classes: int, protocol: Protocol, device: torch.device) -> int:
    """Return how many images of the size of a label are evaluated together."""
    if device.type != "cuda":
        return BATCH
    pixels = label.numel() * max(1.0, *(scale * scale for scale in protocol.scales))
    return max(1, min(CUDA_BATCH, int(CUDA_PIXELS // pixels), int(CUDA_SCORES // (4 * classes * pixels))))


def _stacked(parts: Sequence[Tensor], device: torch.device) -> Tensor:
    """Stack tensors of one shape on a device; from the host to CUDA through pinned memory, without waiting."""
    if device.type != "cuda" or parts[0].device.type != "cpu":
        return torch.stack(list(parts)).to(device)
    pinned = torch.empty((len(parts), *parts[0].shape), dtype=parts[0].dtype, pin_memory=True)
    return torch.stack(list(parts), out=pinned).to(device, non_blocking=True)


def _batches_of_one_shape(split: DecodedSplit, batch: Callable[[Tensor], int]) -> Iterator[_Batch]:
    """Yield samples with their indices: full batches as soon as there are any, the others at the end.

    Each sample is read once. Where shapes are so many that too many samples wait, the fullest batch is yielded.

    Args:
        split: the samples.
        batch: returns the size of a full batch, from the label of one of its samples.
    """
    waiting: dict[torch.Size, _Batch] = {}
    for index in range(len(split)):
        sample = split[index]
        group = waiting.setdefault(sample.label.shape, [])
        group.append((index, sample))
        if len(group) >= batch(sample.label):
            yield waiting.pop(sample.label.shape)
        elif sum(map(len, waiting.values())) > WAITING:
            yield waiting.pop(max(waiting, key=lambda shape: len(waiting[shape])))
    yield from waiting.values()
