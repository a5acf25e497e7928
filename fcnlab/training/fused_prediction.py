"""The last upsampling and the choice of the class in one operation, without storing scores of the size of the image."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fcnlab.kernels.argmax import argmax_classes
from fcnlab.models import FCN, TransposedUpsampler
from fcnlab.models.heads import CoarseHead
from fcnlab.training.blocks import (
    BlockGrid,
    compute_tiles,
    count_independent_groups,
    has_blocks,
    kernel_as_matrices,
    scores_as_matrix,
)


def can_fuse_prediction(model: object, device: torch.device) -> bool:
    """Return True if the classes of pixels can be predicted from the coarse scores of a model.

    Args:
        model: has to be an `FCN` whose head has blocks.
        device: device of the model; has to be the CPU.
    """
    return device.type == "cpu" and isinstance(model, FCN) and has_blocks(model.head)


class FusedPrediction:
    """Predicts the class of each pixel from the coarse scores of a network.

    The class has the greatest upsampled score, as in `predict_classes`. Products are computed in tiles, in the
    precision of autocast, and each tile is replaced by its classes before the next one is computed.
    """

    def __init__(self, model: FCN) -> None:
        """Read the kernel of the last upsampling. It must not change as long as this object is used.

        Args:
            model: a network for which `can_fuse_prediction` is true, in eval mode.
        """
        assert isinstance(model.head, CoarseHead) and isinstance(model.head.upsample, TransposedUpsampler)
        self._model, self._head, self._upsample = model, model.head, model.head.upsample
        self._groups = count_independent_groups(self._upsample)
        self._kernels: dict[tuple[int, torch.dtype], Tensor] = {}  # by rows of a tile and precision

    def compute_scores(self, images: Tensor) -> Tensor:
        """Compute the coarse scores of a batch.

        Args:
            images: normalized images [B, C, H, W].

        Returns:
            Logits [B, num_classes, h, w].
        """
        return self._model.coarse_scores(images.contiguous(memory_format=torch.channels_last))

    def classify(self, scores: Tensor, size: Sequence[int]) -> Tensor:
        """Return the class with the greatest upsampled score at each pixel.

        Args:
            scores: coarse scores [B, num_classes, h, w].
            size: height H and width W of the images.

        Returns:
            Classes, uint8 [B, H, W].
        """
        device = scores.device.type
        precision = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else scores.dtype
        grid = BlockGrid.of(self._head, size, scores.device)
        left = scores_as_matrix(grid.gather_corners(scores), self._groups, bias=self._upsample.bias is not None)
        kernels = self._get_kernels(grid.tile_rows, precision)
        pixels = grid.tile_rows * grid.stride
        predicted = torch.empty(len(kernels), left.shape[1], pixels, dtype=torch.uint8)
        for number, blocks, _, by_class in compute_tiles(left.to(precision), kernels, pixels):
            predicted[number, blocks] = argmax_classes(by_class)
        return grid.to_images(predicted)

    def _get_kernels(self, tile_rows: int, precision: torch.dtype) -> Tensor:
        key = tile_rows, precision
        if key not in self._kernels:
            self._kernels[key] = kernel_as_matrices(self._upsample, self._groups, tile_rows).to(precision)
        return self._kernels[key]
