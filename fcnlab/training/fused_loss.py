"""The last upsampling and the loss in one operation, without storing scores of the size of the image.

The upsampling is a product of matrices that is ordered by blocks of pixels and computed in tiles: see
`fcnlab.training.blocks`. The cross entropy replaces the scores of a tile by their gradient, and two more products give
the gradients of the coarse scores and of the kernel. The result equals that of upsampling and cross entropy up to the
order of sums. On CUDA a step consists of three products and one run of the kernel in `fcnlab.kernels.cross_entropy`.

The Lovász loss sorts the pixels of a batch by the probability of each class that occurs, so these probabilities are
stored. The scores of a tile are computed twice then: for the probabilities, and for the gradient of both losses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from fcnlab.kernels import lovasz, softmax
from fcnlab.kernels.cross_entropy import PixelLoss, cross_entropy_
from fcnlab.models import TransposedUpsampler
from fcnlab.models.heads import CoarseHead, DilatedHead, Head
from fcnlab.training.blocks import (
    BlockGrid,
    compute_tiles,
    count_independent_groups,
    has_blocks,
    kernel_as_matrices,
    scores_as_matrix,
)
from fcnlab.training.losses import Loss

_ALIGNMENT = 8
"""On CUDA, half-precision products use all tensor cores if rows are a multiple of 16 bytes."""


def can_fuse(loss: Loss, head: Head, device: torch.device) -> bool:
    """Return True if a loss can be computed from the coarse scores of a head.

    Args:
        loss: has to be pixelwise, or on the CPU the sum of a pixelwise loss and the Lovász loss.
        head: has to have no auxiliary scores, and to end in a transposed convolution whose blocks depend on 2 x 2
            scores.
        device: device that trains.
    """
    if loss.lovasz and device.type == "cpu" and lovasz.is_available() and softmax.is_available():
        loss = replace(loss, lovasz=0.0)
    return loss.is_pixelwise and not _may_have_auxiliary_scores(head) and has_blocks(head)


def _may_have_auxiliary_scores(head: Head) -> bool:
    """Return False if a head certainly has no auxiliary scores, to which the loss applies, too."""
    # An extension's head may implement `auxiliary` without setting `auxiliary_map`.
    overrides = type(head).auxiliary not in (Head.auxiliary, DilatedHead.auxiliary)
    return overrides or head.auxiliary_map is not None


class FusedUpsampleLoss:
    """A loss of coarse scores [B, num_classes, h, w] for labels uint8 [B, H, W], 255 for ignored.

    Equal to the `Loss` of the upsampled scores. Products have the precision of the coarse scores: bfloat16 under
    autocast, like the upsampling there. Loss, gradients and sums over pixels are float32.
    """

    def __init__(self, loss: Loss, head: CoarseHead) -> None:
        """Combine a loss with the last upsampling of a head.

        Args:
            loss: a loss for which `can_fuse` is true with the head.
            head: the head; its last upsampling is fused.
        """
        assert isinstance(head.upsample, TransposedUpsampler), "can_fuse requires it"
        self.loss, self.head, self.upsample = loss, head, head.upsample
        self.groups = count_independent_groups(head.upsample)
        self.compute_micro_batch_weight = loss.compute_micro_batch_weight

    def __call__(self, scores: Tensor, labels: Tensor) -> Tensor:
        """Compute the loss of a batch.

        Args:
            scores: coarse scores [B, num_classes, h, w].
            labels: uint8 [B, H, W], 255 for ignored.

        Returns:
            A float32 scalar; 0, with a gradient of 0, if all pixels are ignored.
        """
        grid = BlockGrid.of(self.head, labels.shape[1:], scores.device)
        block_labels = grid.to_blocks(labels)
        blocks = block_labels.shape[1] // len(labels)
        factors = self.loss.compute_image_factors(labels).unsqueeze(1).expand(-1, blocks).reshape(-1).contiguous()
        pixel_loss = PixelLoss.from_class_weights(
            scores.shape[1], self.loss.class_weights, self.loss.label_smoothing, scores.device
        )
        left = scores_as_matrix(grid.gather_corners(scores), self.groups, bias=self.upsample.bias is not None)
        right = kernel_as_matrices(self.upsample, self.groups, grid.tile_rows)
        total: Tensor = _UpsampledLoss.apply(
            left, right, block_labels, factors, pixel_loss, self.loss.lovasz, scores.dtype
        )
        return total


class _UpsampledLoss(torch.autograd.Function):
    """Loss of the product of scores [G, N, K] and kernels [tiles, G, K, C/G * T] for labels [tiles, N, T].

    N is the number of blocks and T the number of pixels of a block in a tile; the cross entropy of each block is
    multiplied by its factor [N], and the Lovász loss by `lovasz_factor`. All tensors are float32, products have the
    given precision. Gradients are computed together with the loss, in float32; the backward pass only multiplies them
    by the gradient of the loss.
    """

    @staticmethod
    def forward(
        ctx: Any,
        left: Tensor,
        kernels: Tensor,
        labels: Tensor,
        factors: Tensor,
        pixel_loss: PixelLoss,
        lovasz_factor: float,
        precision: torch.dtype,
    ) -> Tensor:
        k = left.shape[2]
        unit: Tensor | None = None
        if precision == torch.float16:
            factors, lovasz_factor, unit = _scale_for_float16(factors, lovasz_factor, labels.numel())
        left, kernels = _align(left.to(precision)), _align(kernels.to(precision))
        found = _compute_gradients(left, kernels, labels, factors, pixel_loss, lovasz_factor, ctx.needs_input_grad)
        left_grad = None if found.left is None else found.left[..., :k]
        kernel_grad = None if found.kernels is None else found.kernels[..., :k, :]
        loss = found.loss
        if unit is not None:
            loss = loss * unit
            left_grad, kernel_grad = (None if grad is None else grad * unit for grad in (left_grad, kernel_grad))
        ctx.save_for_backward(left_grad, kernel_grad)
        return loss

    @staticmethod
    def backward(ctx: Any, *grad_loss: Tensor) -> tuple[Tensor | None, ...]:
        grads = (None if grad is None else grad * grad_loss[0] for grad in ctx.saved_tensors)
        return *grads, None, None, None, None, None


class _Gradients(NamedTuple):
    """A loss, and its gradients in float32 with respect to scores and kernels; None for those that are not needed."""

    loss: Tensor
    left: Tensor | None
    kernels: Tensor | None


def _scale_for_float16(factors: Tensor, lovasz_factor: float, pixels: int) -> tuple[Tensor, float, Tensor]:
    """Divide the factors of a loss by the largest one, which is returned, too.

    The gradient of a mean over millions of pixels underflows in float16. Factors are therefore divided while gradients
    are float16, and the float32 results are multiplied by the divisor again.
    """
    largest = factors.amax().clamp_min(lovasz_factor / pixels)
    unit = largest.clamp_min(torch.finfo(torch.float32).tiny)
    return factors / unit, lovasz_factor / float(unit) if lovasz_factor else lovasz_factor, unit


def _compute_gradients(
    left: Tensor,
    kernels: Tensor,
    labels: Tensor,
    factors: Tensor,
    pixel_loss: PixelLoss,
    lovasz_factor: float,
    needed: Sequence[bool],
) -> _Gradients:
    """Compute the loss tile by tile, and the gradients of scores and kernels that are needed."""
    losses: list[Tensor] = []
    slopes: dict[int, Tensor] | None = None
    if lovasz_factor:
        lovasz_loss, slopes = _compute_lovasz(left, kernels, labels, lovasz_factor)
        losses.append(lovasz_loss)
    left_grads: dict[int, Tensor] = {}  # by the first block of a chunk, summed over tiles
    kernel_grads: dict[int, Tensor] = {}  # by tile, summed over chunks
    for tile, blocks, scores, by_class in compute_tiles(left, kernels, labels.shape[2]):
        tile_slopes = None if slopes is None else {index: slope[tile, blocks] for index, slope in slopes.items()}
        losses.append(cross_entropy_(by_class, labels[tile, blocks], factors[blocks], pixel_loss, tile_slopes))
        # From here on, `scores` are the gradient of the scores.
        if needed[0]:
            _add(left_grads, blocks.start, _matmul_float32(scores, kernels[tile].mT))
        if needed[1]:
            _add(kernel_grads, tile, _matmul_float32(left[:, blocks].mT, scores))
    return _Gradients(
        sum(losses[1:], start=losses[0]),
        _cat(list(left_grads.values()), 1) if left_grads else None,
        _cat([grad.unsqueeze(0) for grad in kernel_grads.values()], 0) if kernel_grads else None,
    )


def _compute_lovasz(left: Tensor, kernels: Tensor, labels: Tensor, factor: float) -> tuple[Tensor, dict[int, Tensor]]:
    """Return the Lovász loss times a factor, and its gradient with respect to the probabilities.

    The gradient is float32 [tiles, N, T], by class; classes that do not occur are missing, their gradient is 0.
    """
    num_classes = left.shape[0] * kernels.shape[3] // labels.shape[2]
    occurring = lovasz.find_occurring_classes(labels, num_classes)
    probabilities = dict(zip(occurring, torch.empty(len(occurring), *labels.shape), strict=True))
    for tile, blocks, _, scores in compute_tiles(left, kernels, labels.shape[2]):
        by_class = scores.float() if scores.dtype == torch.float16 else scores
        softmax.softmax_of_classes(by_class, {index: values[tile, blocks] for index, values in probabilities.items()})
    flat = {index: values.flatten() for index, values in probabilities.items()}
    return lovasz.lovasz_of_classes_(flat, labels.flatten(), factor), probabilities


def _align(matrices: Tensor) -> Tensor:
    """Pad the third dimension with zeros to a multiple of `_ALIGNMENT` on CUDA."""
    missing = -matrices.shape[2] % _ALIGNMENT
    if matrices.device.type == "cpu" or not missing:
        return matrices
    return F.pad(matrices, (0, 0) * (matrices.dim() - 3) + (0, missing))


def _matmul_float32(left: Tensor, right: Tensor) -> Tensor:
    """Multiply batches of matrices to a float32 result, on CUDA without rounding to half precision before."""
    if left.is_cuda and left.dtype in (torch.bfloat16, torch.float16):
        return torch.bmm(left, right, out_dtype=torch.float32)
    return torch.bmm(left, right).float()


def _add(sums: dict[int, Tensor], key: int, term: Tensor) -> None:
    """Add a term, which is not used afterwards, to the sum of a key."""
    if key in sums:
        sums[key] += term
    else:
        sums[key] = term


def _cat(parts: list[Tensor], dim: int) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim)
