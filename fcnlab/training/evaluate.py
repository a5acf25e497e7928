"""Evaluation of a split at native size: labels are not resized and images not padded."""

from __future__ import annotations

from collections.abc import Callable, Collection, Container, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fcnlab.data.batches import normalize
from fcnlab.data.decoded import DecodedSplit
from fcnlab.kernels.inputs import DecodedSample
from fcnlab.metrics.boundary import count_boundaries
from fcnlab.metrics.confusion import count_areas, count_joint
from fcnlab.metrics.summary import Counts
from fcnlab.models import FCN
from fcnlab.training.prediction import create_predictor
from fcnlab.training.protocol import Protocol

OnPrediction = Callable[[int, Tensor], None]
"""Callback that receives the index of an image and its prediction, uint8 [H, W] on the CPU."""
OnProgress = Callable[[int, int], None]
"""Callback that receives the number of evaluated images and the number of all images."""

DEFAULT_PROTOCOL = Protocol()
MAX_PENDING_IMAGES = 256
"""Largest number of decoded images that wait for others of their shape."""
MAX_PENDING_BYTES = 2**30
"""Largest size of these images and their labels."""
CPU_BATCH_SIZE = 4
CUDA_MAX_BATCH_SIZE = 16
CUDA_MAX_BATCH_PIXELS = 4 * 2**20
"""Pixels of a batch on CUDA, at the largest scale of the protocol."""
CUDA_MAX_SCORE_BYTES = 1.5e9
"""Size of the scores of a batch on CUDA, in bytes of float32."""

_Batch = list[tuple[int, DecodedSample]]


class SplitCounts(NamedTuple):
    """Counts of the images of a split.

    Attributes:
        areas: int64 [N, num_classes, 3].
        boundaries: counts of boundary pixels, int64 [N, num_classes, 3]; None unless requested.
        contain_nan: true if a score is not a number. The greatest score of its pixel is undefined, so the counts are
            not those of the network.
        confusion: pixels of all images by label (rows) and prediction (columns), int64 [num_classes, num_classes]; None
            unless requested.
    """

    areas: Counts
    boundaries: Counts | None
    contain_nan: bool
    confusion: NDArray[np.int64] | None = None


@torch.inference_mode()
def evaluate_split(
    model: FCN,
    split: DecodedSplit,
    *,
    num_classes: int,
    autocast: Callable[[], AbstractContextManager[object]],
    protocol: Protocol = DEFAULT_PROTOCOL,
    boundaries: bool = False,
    confusion: bool = False,
    on_prediction: OnPrediction | None = None,
    prediction_indices: Container[int] | None = None,
    on_progress: OnProgress | None = None,
) -> SplitCounts:
    """Evaluate every image of a split at its native size.

    Images of one shape are evaluated together, wherever they are in the split: `CPU_BATCH_SIZE` on the CPU, and on CUDA
    as many as the `CUDA_MAX_*` constants allow. Pixels are counted on the device, and
    the results are copied to the host once, at the end, so that the device never waits for the host.

    Args:
        model: the network; is put into eval mode.
        split: the samples, on the CPU or on the device of the model.
        num_classes: number of classes.
        autocast: creates the context in which the model runs.
        protocol: windows, flips and scales.
        boundaries: count boundary pixels too.
        confusion: count the combinations of label and prediction too. On CUDA this waits for the batch.
        on_prediction: called with each prediction. On CUDA this waits for the batch.
        prediction_indices: indices of the images for which `on_prediction` is called; by default all.
        on_progress: called after each image; on CUDA its computation may still be pending.

    Returns:
        The counts, in the order of the split.
    """
    # Layers may cache values in eval mode and drop them only in `train()`: a model that never leaves eval mode, such as
    # a moving average, would be evaluated with values of earlier weights.
    model.train()
    model.eval()
    device = next(model.parameters()).device
    predict = create_predictor(model, protocol, device)
    order: list[int] = []
    area_counts: list[Tensor] = []
    boundary_counts: list[Tensor] = []
    nan_found = torch.zeros((), dtype=torch.bool, device=device)
    joint_counts = torch.zeros((num_classes, num_classes), dtype=torch.int64, device=device)
    for batch in _group_by_shape(split, lambda label: _choose_batch_size(label, num_classes, protocol, device)):
        indices, images, labels = _stack_batch(batch, device)
        with autocast():
            predictions, has_nan = predict(normalize(images, model.backbone.mean, model.backbone.std))
        nan_found |= has_nan
        area_counts.append(count_areas(predictions, labels, num_classes))
        if boundaries:
            boundary_counts.append(count_boundaries(predictions, labels, num_classes))
        if confusion:  # ignored pixels are in an additional row
            joint_counts += count_joint(predictions, labels, num_classes, num_classes + 1)[:, :num_classes].sum(0)
        if on_prediction is not None:
            _pass_predictions(predictions, indices, prediction_indices, on_prediction)
        if on_progress is not None:
            for done in range(len(order) + 1, len(order) + len(indices) + 1):
                on_progress(done, len(split))
        order += indices
    return SplitCounts(
        _in_split_order(area_counts, order, num_classes),
        _in_split_order(boundary_counts, order, num_classes) if boundaries else None,
        _read_flag(nan_found),
        joint_counts.cpu().numpy() if confusion else None,
    )


def _pass_predictions(
    predictions: Tensor, indices: Sequence[int], requested: Container[int] | None, on_prediction: OnPrediction
) -> None:
    """Call a function with the requested predictions [H, W] of a batch, on the CPU."""
    positions = [i for i, index in enumerate(indices) if requested is None or index in requested]
    if not positions:  # copying to the host would wait for the device
        return
    on_host = predictions.cpu()
    for i in positions:
        on_prediction(indices[i], on_host[i])


def _read_flag(flag: Tensor) -> bool:
    """Copy a flag from the device of a split to the host, once."""
    return bool(flag.cpu().numpy())


def _in_split_order(counts: list[Tensor], order: list[int], num_classes: int) -> Counts:
    """Copy counts [B, num_classes, 3] of batches to the host, in the order of the split."""
    ordered = np.zeros((len(order), num_classes, 3), dtype=np.int64)
    if counts:
        ordered[order] = torch.cat(counts).cpu().numpy()
    return ordered


def _choose_batch_size(label: Tensor, num_classes: int, protocol: Protocol, device: torch.device) -> int:
    """Return the batch size for images of the size of a label."""
    if device.type != "cuda":
        return CPU_BATCH_SIZE
    pixels = label.numel() * max(1.0, *(scale * scale for scale in protocol.scales))
    by_pixels, by_scores = int(CUDA_MAX_BATCH_PIXELS // pixels), int(CUDA_MAX_SCORE_BYTES // (4 * num_classes * pixels))
    return max(1, min(CUDA_MAX_BATCH_SIZE, by_pixels, by_scores))


def _stack_batch(batch: _Batch, device: torch.device) -> tuple[list[int], Tensor, Tensor]:
    """Return the indices, the images [B, C, H, W] and the labels [B, H, W] of a batch, on a device."""
    # Samples are stored pixel by pixel; stacked in that order, the batch has the channels-last layout.
    images = _stack([sample.image.movedim(0, -1) for _, sample in batch], device).movedim(-1, 1)
    labels = _stack([sample.label for _, sample in batch], device)
    return [index for index, _ in batch], images, labels


def _stack(tensors: Sequence[Tensor], device: torch.device) -> Tensor:
    """Stack tensors of one shape on a device; from the host to CUDA through pinned memory, without waiting."""
    if device.type != "cuda" or tensors[0].device.type != "cpu":
        return torch.stack(list(tensors)).to(device)
    pinned = torch.empty((len(tensors), *tensors[0].shape), dtype=tensors[0].dtype, pin_memory=True)
    return torch.stack(list(tensors), out=pinned).to(device, non_blocking=True)


def _group_by_shape(split: DecodedSplit, batch_size: Callable[[Tensor], int]) -> Iterator[_Batch]:
    """Yield samples of one shape with their indices, as full batches while the split is read and the rest at the end.

    Each sample is read once. When more than `MAX_PENDING_IMAGES` or `MAX_PENDING_BYTES` are pending, the incomplete
    batches with the most images are yielded.

    Args:
        split: the samples.
        batch_size: returns the size of a full batch for the label of one of its samples.
    """
    pending: dict[torch.Size, _Batch] = {}
    for index in range(len(split)):
        sample = split[index]
        group = pending.setdefault(sample.label.shape, [])
        group.append((index, sample))
        if len(group) >= batch_size(sample.label):
            yield pending.pop(sample.label.shape)
        while _exceeds_limits(pending.values()):
            yield pending.pop(max(pending, key=lambda shape: len(pending[shape])))
    yield from pending.values()


def _exceeds_limits(groups: Collection[_Batch]) -> bool:
    """Return whether pending samples, grouped by their shape, are too many or too large."""
    size = sum(len(group) * group[0][1].nbytes for group in groups)
    return size > MAX_PENDING_BYTES or sum(map(len, groups)) > MAX_PENDING_IMAGES
