"""The last upsampling and the cross entropy in one operation, so that scores of the image's size are never stored.

A transposed convolution of stride s with a kernel of at most 2s writes blocks of s x s pixels, and each block reads
only the 2 x 2 coarse scores around it:

    coarse scores            pixels of the image
    a --- b --- c            each of the blocks 1, 2, ... has s x s pixels;
    |  1  |  2  |            block 1 reads a, b, d and e:
    d --- e --- f            4C numbers times [4C, C*s*s] are its scores

So the upsampling of all blocks is one product of matrices. Its result is ordered block by block. Instead of the scores
(4C or 2C bytes a pixel), the labels (one byte a pixel) are brought into this order. Tile by tile, the scores are
computed, the cross entropy replaces them by their gradient, and two more products give the gradients of the coarse
scores and of the kernel. The result is that of the plain operators, up to the order of sums.

On the CPU a tile is some rows of some blocks, so that it stays in the cache. On CUDA there is one tile, as long as it
fits `NUMBERS`: then a step is three products and one pass of the kernel in `fcnlab.kernels.cross_entropy`.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fcnlab.constants import IGNORE_INDEX
from fcnlab.kernels.cross_entropy import PixelLoss, cross_entropy_
from fcnlab.models import TransposedUpsampler
from fcnlab.models.heads import CoarseHead, Head
from fcnlab.models.upsampler import corners
from fcnlab.training.distributed import SINGLE_PROCESS, ProcessGroup
from fcnlab.training.losses import Loss

MIN_TILE_PIXELS = 128
"""The least number of pixels of a block in one tile on the CPU; elsewhere a tile has whole blocks."""
MAX_TILE_SCORES = {"cpu": 2**20, "cuda": 2**28}
"""The largest number of scores of one tile, by device: on the CPU they should stay in its cache, on CUDA they take
512 MB in bfloat16 and 1 GB in float32."""
_ALIGNED = 8
"""On CUDA, half-precision products run on all tensor cores where rows are a multiple of 16 bytes."""


def can_fuse(loss: Loss, head: Head) -> bool:
    """Whether the loss can be taken of the coarse scores of a head: the one place where this is decided.

    It can where every pixel's loss is its own, there are no auxiliary scores, and the head ends in a transposed
    convolution whose blocks read 2 x 2 scores.
    """
    return (
        loss.is_pixelwise
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
            loss: one that is compatible (`can_fuse`) with the head.
            head: whose last upsampling this is.
        """
        assert isinstance(head.upsample, TransposedUpsampler), "can_fuse has checked it"
        self.loss, self.upsample, self.offset = loss, head.upsample, head.offset
        self.groups = _groups(head.upsample)

    def __call__(self, scores: Tensor, labels: Tensor) -> Tensor:
        """The loss, a float32 scalar; 0, with a gradient of 0, where no pixel counts."""
        classes, s = scores.shape[1], self.upsample.stride[0]
        start = int(self.upsample.padding[0]) + self.offset  # where the image begins in what is not cropped
        tall, wide = ((start // s, -(-(start + length) // s)) for length in labels.shape[1:])
        # In float32, so that the four parts of a score's gradient are added up before they are rounded.
        windows = corners(scores.float())[..., slice(*tall), slice(*wide)]
        rows = _rows(s, scores.device)
        in_blocks = _labels_in_blocks(labels, start, tall, wide, s, rows)
        blocks = in_blocks.shape[1] // len(labels)
        factors = self.loss.compute_image_factors(labels).unsqueeze(1).expand(-1, blocks).reshape(-1).contiguous()
        pixel = PixelLoss.from_class_weights(classes, self.loss.class_weights, self.loss.label_smoothing, scores.device)
        windows, kernels = _matrices(self.upsample, self.groups, windows, rows)
        value: Tensor = _UpsampleCrossEntropy.apply(windows, kernels, in_blocks, factors, pixel, scores.dtype)
        return value

    def weight_of_part(self, part: Tensor, whole: Tensor, group: ProcessGroup = SINGLE_PROCESS) -> Tensor | float:
        """As `Loss.weight_of_part`."""
        return self.loss.weight_of_part(part, whole, group)


def _groups(upsample: TransposedUpsampler) -> int:
    """How many groups of classes do not read one another: 1 or C, also where all is read but with weights of zero.

    Such a kernel, bilinear and fixed, needs a C-th of the arithmetic. One that learns may come off zero.
    """
    if upsample.weight.requires_grad or upsample.groups > 1:
        return upsample.groups
    weight = upsample.weight.flatten(2)
    others = ~torch.eye(len(weight), dtype=torch.bool, device=weight.device)
    return 1 if bool(weight[others].any()) else len(weight)


def _rows(s: int, device: torch.device) -> int:
    """Return how many of the s rows of a block make a tile: on the CPU, as few as have `PIXELS` pixels."""
    if device.type != "cpu":
        return s
    return next((rows for rows in range(1, s) if s % rows == 0 and rows * s >= MIN_TILE_PIXELS), s)


def _matrices(upsample: TransposedUpsampler, groups: int, windows: Tensor, rows: int) -> tuple[Tensor, Tensor]:
    """Bring coarse scores and kernel into the form of matrices.

    Args:
        upsample: the upsampling, whose kernel and bias are read.
        groups: G, the number of groups of classes that do not read one another; each has `each` = C / G classes.
        windows: [B, 4, C, h', w'], the 2 x 2 scores around each block.
        rows: of a block in a tile.

    Returns:
        The scores [G, B*h'*w', K] and the kernel [tiles, G, K, each * rows * s], with K = 4 * each. A bias is one more
        number in K.
    """
    s, weight = upsample.stride[0], upsample.weight
    if groups > upsample.groups:
        weight = weight.diagonal().movedim(-1, 0).unsqueeze(1)
    batch, four, classes, height, width = windows.shape
    each, tiles = classes // groups, s // rows
    by_group = windows.view(batch, four, groups, each, height, width)
    # [batch, four, group, class, y, x] -> [group, batch, y, x, four, class]
    left = by_group.permute(2, 0, 4, 5, 1, 3).reshape(groups, -1, four * each)
    missing = 2 * s - upsample.kernel_size[0]
    # The kernel has two halves along y and along x, one for each of the two scores that a block reads there.
    halves = F.pad(weight, (0, missing, 0, missing)).view(groups, each, each, 2, tiles, rows, 2, s)
    # [group, class read, class written, y half, tile, row, x half, column]
    # -> [tile, group, y half, x half, class read, class written, row, column]
    right = halves.permute(4, 0, 3, 6, 1, 2, 5, 7).reshape(tiles, groups, four * each, each * rows * s)
    if upsample.bias is not None:
        left = torch.cat([left, left.new_ones(groups, left.shape[1], 1)], 2)
        bias = upsample.bias.unsqueeze(1).expand(-1, rows * s).reshape(groups, 1, -1)
        right = torch.cat([right, bias.expand(tiles, -1, -1, -1)], 2)
    return left, right


def _labels_in_blocks(
    labels: Tensor, start: int, tall: tuple[int, int], wide: tuple[int, int], s: int, rows: int
) -> Tensor:
    """Bring labels [B, H, W] into the order [tiles, B*h'*w', rows * s]; pixels outside the image are ignored.

    Args:
        labels: uint8 [B, H, W].
        start: the first row and column of the image in the upsampled scores before they are cropped.
        tall: the first block row of the image, and the one after the last.
        wide: likewise for block columns.
        s: the stride of the upsampling.
        rows: of a block in a tile.
    """
    (above, below), (left, right) = (
        (start - first * s, end * s - start - length)
        for (first, end), length in zip((tall, wide), labels.shape[1:], strict=True)
    )
    padded = F.pad(labels, (left, right, above, below), value=IGNORE_INDEX)
    # [batch, block row, tile, row, block column, column] -> [tile, batch, block row, block column, row, column]
    blocks = padded.view(len(labels), tall[1] - tall[0], s // rows, rows, wide[1] - wide[0], s)
    return blocks.permute(2, 0, 1, 4, 3, 5).reshape(s // rows, -1, rows * s).contiguous()


class _UpsampleCrossEntropy(torch.autograd.Function):
    """Windows [G, P, K] times kernels [tiles, G, K, C/G * T] -> their loss; labels [tiles, P, T], factors [P].

    All are float32; products are made in `precision`. The gradients are computed together with the loss, in float32:
    the backward pass only multiplies them by the gradient of the loss.
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
        groups, positions, k = windows.shape
        pixels = labels.shape[2]
        each = kernels.shape[3] // pixels  # classes of a group
        chunk = max(1, MAX_TILE_SCORES.get(windows.device.type, MAX_TILE_SCORES["cuda"]) // (groups * each * pixels))
        chunks = [slice(i, i + chunk) for i in range(0, positions, chunk)]
        unit: Tensor | None = None
        if precision == torch.float16:
            # The gradient of a mean over millions of pixels is below the smallest float16. So the gradients of each
            # pixel's own loss are stored, up to differences between factors, and the float32 results are multiplied.
            unit = factors.amax().clamp_min(torch.finfo(torch.float32).tiny)
            factors = factors / unit
        windows, kernels = _aligned(windows.to(precision), 2), _aligned(kernels.to(precision), 2)
        losses: list[Tensor] = []
        of_windows: dict[int, Tensor] = {}  # by the first position of a chunk, summed over tiles
        of_kernels: dict[int, Tensor] = {}  # by tile, summed over chunks
        for tile, kernel in enumerate(kernels):
            for some in chunks:
                scores = torch.bmm(windows[:, some], kernel)
                # [group, position, class in group, pixel] -> [position, class, pixel], without a copy
                by_class = scores.view(groups, -1, each, pixels).transpose(0, 1).view(-1, groups * each, pixels)
                losses.append(cross_entropy_(by_class, labels[tile, some], factors[some], pixel))
                if ctx.needs_input_grad[0]:
                    _add(of_windows, some.start, _product(scores, kernel.mT))
                if ctx.needs_input_grad[1]:
                    _add(of_kernels, tile, _product(windows[:, some].mT, scores))
        d_windows = _joined(list(of_windows.values()), 1)[..., :k] if of_windows else None
        d_kernels = _joined([one.unsqueeze(0) for one in of_kernels.values()], 0)[..., :k, :] if of_kernels else None
        total = sum(losses[1:], start=losses[0])
        if unit is not None:
            total = total * unit
            d_windows, d_kernels = (None if of is None else of * unit for of in (d_windows, d_kernels))
        ctx.save_for_backward(d_windows, d_kernels)
        return total

    @staticmethod
    def backward(ctx: Any, *d_loss: Tensor) -> tuple[Tensor | None, ...]:
        given = (None if gradient is None else gradient * d_loss[0] for gradient in ctx.saved_tensors)
        return *given, None, None, None, None


def _aligned(matrices: Tensor, dim: int) -> Tensor:
    """Append zeros along a dimension on CUDA, so that its length is a multiple of `_ALIGNED`."""
    missing = -matrices.shape[dim] % _ALIGNED
    if matrices.device.type == "cpu" or not missing:
        return matrices
    return F.pad(matrices, (0, 0) * (matrices.dim() - 1 - dim) + (0, missing))


def _product(left: Tensor, right: Tensor) -> Tensor:
    """Multiply batches of matrices; the result is float32, on CUDA without being rounded to half precision before."""
    if left.is_cuda and left.dtype in (torch.bfloat16, torch.float16):
        return torch.bmm(left, right, out_dtype=torch.float32)
    return torch.bmm(left, right).float()


def _add(sums: dict[int, Tensor], key: int, term: Tensor) -> None:
    """Add a term, which is not used afterwards, to the sum of a key."""
    if key in sums:
        sums[key] += term
    else:
        sums[key] = term


def _joined(parts: list[Tensor], dim: int) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim)
