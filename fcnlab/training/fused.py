"""The last upsampling and the cross entropy in one, so that scores at the image's size are never stored.

A transposed convolution of stride s and a kernel of at most 2s gives blocks of s x s pixels, and each block reads the
2 x 2 coarse scores around it alone. So it is a product of matrices: 4C numbers a block with [4C, C*s*s]. Its result
lies block by block, and instead of putting it in the order of pixels, the labels are put into that of blocks: they
are one byte a pixel, where scores are 4C or 2C. Then a tile of some rows of some blocks at a time is scored, gets its
loss and its gradient, which takes its place, and is multiplied back into the gradients of the coarse scores and of the
kernel. What is computed is what the plain operators compute, in another order of sums.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fcnlab.data.base import IGNORE
from fcnlab.kernels.cross_entropy import PixelLoss, cross_entropy_
from fcnlab.models import TransposedUpsampler
from fcnlab.models.heads import CoarseHead, Head
from fcnlab.models.upsampler import corners
from fcnlab.training.distributed import ALONE, Group
from fcnlab.training.losses import Loss

PIXELS = 128
"""So many pixels of a block a tile has at least, where the block has them."""
NUMBERS = {"cpu": 2**20, "cuda": 2**26}
"""How many scores a tile has at most: on the CPU they should stay in its cache."""


def fusible(loss: Loss, head: Head) -> bool:
    """Whether the loss can be taken of the coarse scores of a head: the one place where this is decided.

    It can where every pixel's loss is its own, there are no auxiliary scores, and the head ends in a transposed
    convolution whose blocks read 2 x 2 scores.
    """
    return (
        loss.of_single_pixels
        and head.auxiliary_map is None
        and isinstance(head, CoarseHead)
        and isinstance(head.upsample, TransposedUpsampler)
        and head.upsample.kernel_size[0] <= 2 * head.upsample.stride[0]
    )


class FusedUpsampleLoss:
    """A loss of coarse scores [B, C, h, w] against labels uint8 [B, H, W], 255 for ignored.

    Equal to the `Loss` of what the head makes of them. The product is as precise as the coarse scores are: bfloat16
    under autocast, as the plain upsampling there. Loss and gradient are float32, sums over pixels too.
    """

    def __init__(self, loss: Loss, head: CoarseHead) -> None:
        """
        Args:
            loss: one that is `fusible` with the head.
            head: whose last upsampling this is.
        """
        assert isinstance(head.upsample, TransposedUpsampler), "it is fusible"
        self.loss, self.upsample, self.offset = loss, head.upsample, head.offset
        self.groups = _groups(head.upsample)

    def __call__(self, scores: Tensor, labels: Tensor) -> Tensor:
        """The loss, a float32 scalar; 0, with a gradient of 0, where no pixel counts."""
        classes, s = scores.shape[1], self.upsample.stride[0]
        start = int(self.upsample.padding[0]) + self.offset  # where the image begins in what is not cropped
        tall, wide = ((start // s, -(-(start + length) // s)) for length in labels.shape[1:])
        # In float32, so that the four parts of a score's gradient are added up before they are rounded.
        windows = corners(scores.float())[..., slice(*tall), slice(*wide)]
        rows = _rows(s)
        in_blocks = _labels_in_blocks(labels, start, tall, wide, s, rows)
        factors = self.loss.image_factors(labels).repeat_interleave(in_blocks.shape[1] // len(labels))
        pixel = PixelLoss.of(classes, self.loss.class_weights, self.loss.label_smoothing, scores.device)
        windows, kernels = _matrices(self.upsample, self.groups, windows, rows)
        value: Tensor = _UpsampleCrossEntropy.apply(windows, kernels, in_blocks, factors, pixel, scores.dtype)
        return value

    def share(self, part: Tensor, whole: Tensor, group: Group = ALONE) -> Tensor | float:
        """As `Loss.share`."""
        return self.loss.share(part, whole, group)


def _groups(upsample: TransposedUpsampler) -> int:
    """How many groups of classes do not read one another: 1 or C, also where all is read but with weights of zero.

    Such a kernel, bilinear and fixed, needs a C-th of the arithmetic. One that learns may come off zero.
    """
    if upsample.weight.requires_grad or upsample.groups > 1:
        return upsample.groups
    weight = upsample.weight.flatten(2)
    others = ~torch.eye(len(weight), dtype=torch.bool, device=weight.device)
    return 1 if bool(weight[others].any()) else len(weight)


def _rows(s: int) -> int:
    """How many of the s rows of a block make a tile: as few as have `PIXELS` pixels."""
    return next((rows for rows in range(1, s) if s % rows == 0 and rows * s >= PIXELS), s)


def _matrices(upsample: TransposedUpsampler, groups: int, windows: Tensor, rows: int) -> tuple[Tensor, Tensor]:
    """Scores [B, 4, C, h', w'] as [G, B*h'*w', K] and the kernel as [tiles, G, K, C/G * rows * s].

    G is how many groups of classes do not read one another, and K = 4C / G. A bias is one number more in K.
    """
    s, weight = upsample.stride[0], upsample.weight
    if groups > upsample.groups:
        weight = weight.diagonal().movedim(-1, 0).unsqueeze(1)
    batch, four, classes, height, width = windows.shape
    each = classes // groups
    left = windows.view(batch, four, groups, each, height, width).permute(2, 0, 4, 5, 1, 3)
    left = left.reshape(groups, -1, 4 * each)
    missing = 2 * s - upsample.kernel_size[0]
    kernel = F.pad(weight, (0, missing, 0, missing)).view(groups, each, each, 2, s // rows, rows, 2, s)
    right = kernel.permute(4, 0, 3, 6, 1, 2, 5, 7).reshape(s // rows, groups, 4 * each, each * rows * s)
    if upsample.bias is not None:
        left = torch.cat([left, left.new_ones(groups, left.shape[1], 1)], 2)
        bias = upsample.bias.repeat_interleave(rows * s).view(groups, 1, -1)
        right = torch.cat([right, bias.expand(s // rows, -1, -1, -1)], 2)
    return left, right


def _labels_in_blocks(
    labels: Tensor, start: int, tall: tuple[int, int], wide: tuple[int, int], s: int, rows: int
) -> Tensor:
    """Labels [B, H, W] as [tiles, B*h'*w', rows * s]; what lies beside the image is ignored.

    `start` is the image's first row and column, `tall` and `wide` the blocks from and to which it reaches.
    """
    (above, below), (left, right) = (
        (start - first * s, end * s - start - length)
        for (first, end), length in zip((tall, wide), labels.shape[1:], strict=True)
    )
    padded = F.pad(labels, (left, right, above, below), value=IGNORE)
    blocks = padded.view(len(labels), tall[1] - tall[0], s // rows, rows, wide[1] - wide[0], s)
    return blocks.permute(2, 0, 1, 4, 3, 5).reshape(s // rows, -1, rows * s).contiguous()


class _UpsampleCrossEntropy(torch.autograd.Function):
    """Windows [G, P, K] times kernels [tiles, G, K, C/G * T] -> the loss of that; labels [tiles, P, T], factors [P].

    All are float32; products are made in `precision`. The gradients are there as soon as the loss is: the backward pass
    only hands them on.
    """

    @staticmethod
    def forward(
        ctx: Any,
        windows: Tensor,
        kernels: Tensor,
        labels: Tensor,
        factors: Tensor,
        pixel: PixelLoss,
        precision: torch.dtype,
    ) -> Tensor:
        groups, positions, _ = windows.shape
        pixels = labels.shape[2]
        classes = groups * kernels.shape[3] // pixels
        chunk = max(1, NUMBERS.get(windows.device.type, NUMBERS["cuda"]) // (classes * pixels))
        total = torch.zeros((), device=windows.device)
        d_windows = torch.zeros_like(windows) if ctx.needs_input_grad[0] else None
        d_kernels = torch.zeros_like(kernels) if ctx.needs_input_grad[1] else None
        windows, kernels = windows.to(precision), kernels.to(precision)
        for tile, kernel in enumerate(kernels):
            for i in range(0, positions, chunk):
                some = windows[:, i : i + chunk]
                scores = torch.bmm(some, kernel)
                by_class = scores.view(groups, -1, classes // groups, pixels).transpose(0, 1).view(-1, classes, pixels)
                total += cross_entropy_(by_class, labels[tile, i : i + chunk], factors[i : i + chunk], pixel)
                if d_windows is not None:
                    d_windows[:, i : i + chunk] += torch.bmm(scores, kernel.mT)
                if d_kernels is not None:
                    d_kernels[tile] += torch.bmm(some.mT, scores)
        ctx.save_for_backward(d_windows, d_kernels)
        return total

    @staticmethod
    def backward(ctx: Any, *d_loss: Tensor) -> tuple[Tensor | None, ...]:
        given = (None if gradient is None else gradient * d_loss[0] for gradient in ctx.saved_tensors)
        return *given, None, None, None, None
