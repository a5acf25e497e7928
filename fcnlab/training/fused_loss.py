"""The last upsampling and the cross entropy in one operation, without storing scores of the size of the image.

A transposed convolution of stride s with a kernel of at most 2s x 2s writes blocks of s x s pixels. Each block depends
only on the 2 x 2 coarse scores at its corners, each of which is multiplied by one quarter of the kernel:

    coarse scores                        kernel, 2s x 2s

    d --------- c                            s     s
    |   block   |                         +-----+-----+
    |   of      |                         |  a  |  b  |  s
    |   s x s   |                         +-----+-----+
    |   pixels  |                         |  c  |  d  |  s
    b --------- a                         +-----+-----+

So the upsampling of all blocks is one matrix product, with C classes and N blocks in a batch:

                 a   b   c   d                    s*s ... s*s               s*s ... s*s
               +---+---+---+---+               +---------------+          +---------------+
    N blocks   | C | C | C | C |          a  C |               |          |  scores of    |
               +---+---+---+---+    x     b  C |  C * s*s      |    =     |  C * s*s      |  N blocks
                                          c  C |               |          |               |
                                          d  C |               |          +---------------+
                                               +---------------+

Its result is ordered by block. The labels, one byte per pixel, are brought into this order instead of the scores, which
have 4C or 2C bytes per pixel. The product is computed in tiles: the cross entropy replaces the scores of a tile by
their gradient, and two more products give the gradients of the coarse scores and of the kernel. The result equals that
of upsampling and cross entropy up to the order of sums.

On the CPU a tile has some blocks and some of their rows, so that it fits the cache. On CUDA there is one tile, as long
as it fits `MAX_TILE_SCORES`; a step then consists of three products and one run of the kernel in
`fcnlab.kernels.cross_entropy`.
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
"""Smallest number of pixels of a block in one tile on the CPU; on CUDA a tile has whole blocks."""
MAX_TILE_SCORES = {"cpu": 2**20, "cuda": 2**28}
"""Largest number of scores in a tile, by device: they fit the cache of a CPU, and take 0.5 to 1 GB on CUDA."""
_ALIGNMENT = 8
"""On CUDA, half-precision products use all tensor cores if rows are a multiple of 16 bytes."""


def can_fuse(loss: Loss, head: Head) -> bool:
    """Return True if a loss can be computed from the coarse scores of a head.

    Args:
        loss: has to be pixelwise.
        head: has to have no auxiliary scores, and to end in a transposed convolution whose blocks depend on 2 x 2
            scores.
    """
    return (
        loss.is_pixelwise
        and head.auxiliary_map is None
        and isinstance(head, CoarseHead)
        and isinstance(head.upsample, TransposedUpsampler)
        and head.upsample.kernel_size[0] <= 2 * head.upsample.stride[0]
    )


class FusedUpsampleLoss:
    """A loss of coarse scores [B, C, h, w] for labels uint8 [B, H, W], 255 for ignored.

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
        self.loss, self.upsample, self.offset = loss, head.upsample, head.offset
        self.groups = _count_independent_groups(head.upsample)

    def __call__(self, scores: Tensor, labels: Tensor) -> Tensor:
        """Compute the loss of a batch.

        Args:
            scores: coarse scores [B, C, h, w].
            labels: uint8 [B, H, W], 255 for ignored.

        Returns:
            A float32 scalar; 0, with a gradient of 0, if all pixels are ignored.
        """
        classes, s = scores.shape[1], self.upsample.stride[0]
        first = int(self.upsample.padding[0]) + self.offset  # first row and column of the image before cropping
        block_rows, block_columns = ((first // s, -(-(first + length) // s)) for length in labels.shape[1:])
        # In float32, so that the four terms of a score's gradient are added before they are rounded.
        corner_scores = corners(scores.float())[..., slice(*block_rows), slice(*block_columns)]
        tile_rows = _choose_tile_rows(s, scores.device)
        block_labels = _labels_by_block(labels, first, block_rows, block_columns, s, tile_rows)
        blocks = block_labels.shape[1] // len(labels)
        factors = self.loss.compute_image_factors(labels).unsqueeze(1).expand(-1, blocks).reshape(-1).contiguous()
        pixel_loss = PixelLoss.from_class_weights(
            classes, self.loss.class_weights, self.loss.label_smoothing, scores.device
        )
        left, right = _as_matrices(self.upsample, self.groups, corner_scores, tile_rows)
        value: Tensor = _UpsampleCrossEntropy.apply(left, right, block_labels, factors, pixel_loss, scores.dtype)
        return value

    def weight_of_part(self, part: Tensor, whole: Tensor, group: ProcessGroup = SINGLE_PROCESS) -> Tensor | float:
        """Compute the weight of the loss of a micro-batch, as `Loss.weight_of_part`.

        Args:
            part: labels of the micro-batch, uint8 [b, H, W].
            whole: labels of the batch, uint8 [B, H, W]; in a group, of the share of this process.
            group: the processes over whose micro-batches the losses are summed.
        """
        return self.loss.weight_of_part(part, whole, group)


def _count_independent_groups(upsample: TransposedUpsampler) -> int:
    """Return the number of groups of classes that do not mix: 1 or C.

    A fixed kernel whose weights between classes are all zero, such as bilinear interpolation, has C groups and needs a
    C-th of the arithmetic. A trainable kernel has them only by construction, because zeros can change.
    """
    if upsample.weight.requires_grad or upsample.groups > 1:
        return upsample.groups
    weight = upsample.weight.flatten(2)
    between_classes = ~torch.eye(len(weight), dtype=torch.bool, device=weight.device)
    return 1 if bool(weight[between_classes].any()) else len(weight)


def _choose_tile_rows(s: int, device: torch.device) -> int:
    """Return the rows of a block in a tile: on the CPU, the fewest with `MIN_TILE_PIXELS` pixels."""
    if device.type != "cpu":
        return s
    return next((rows for rows in range(1, s) if s % rows == 0 and rows * s >= MIN_TILE_PIXELS), s)


def _permute(tensor: Tensor, pattern: str) -> Tensor:
    """Permute named dimensions: `_permute(x, "row column class -> class row column")`."""
    source, target = (side.split() for side in pattern.split("->"))
    return tensor.permute([source.index(name) for name in target])


def _as_matrices(
    upsample: TransposedUpsampler, groups: int, corner_scores: Tensor, tile_rows: int
) -> tuple[Tensor, Tensor]:
    """Return the matrices of the product that upsamples.

    Args:
        upsample: the upsampling, for its kernel and bias.
        groups: G, the number of groups of classes that do not mix; each has C / G classes.
        corner_scores: [B, 4, C, h', w'], the 2 x 2 scores at the corners of each block.
        tile_rows: rows of a block in a tile.

    Returns:
        The scores [G, B*h'*w', K] and the kernel [tiles, G, K, C/G * tile_rows * s], with K = 4C/G, and one more if
        there is a bias.
    """
    s, weight = upsample.stride[0], upsample.weight
    if groups > upsample.groups:  # only the weights of each class for itself are needed
        weight = weight.diagonal().movedim(-1, 0).unsqueeze(1)
    batch, four, classes, height, width = corner_scores.shape
    each, tiles = classes // groups, s // tile_rows
    by_group = corner_scores.view(batch, four, groups, each, height, width)
    left = _permute(by_group, "batch corner group class y x -> group batch y x corner class")
    left = left.reshape(groups, -1, four * each)
    missing = 2 * s - upsample.kernel_size[0]
    quarters = F.pad(weight, (0, missing, 0, missing)).view(groups, each, each, 2, tiles, tile_rows, 2, s)
    right = _permute(
        quarters,
        "group class_in class_out y_half tile row x_half column -> "
        "tile group y_half x_half class_in class_out row column",
    )
    right = right.reshape(tiles, groups, four * each, each * tile_rows * s)
    if upsample.bias is not None:
        left = torch.cat([left, left.new_ones(groups, left.shape[1], 1)], 2)
        bias = upsample.bias.unsqueeze(1).expand(-1, tile_rows * s).reshape(groups, 1, -1)
        right = torch.cat([right, bias.expand(tiles, -1, -1, -1)], 2)
    return left, right


def _labels_by_block(
    labels: Tensor,
    first: int,
    block_rows: tuple[int, int],
    block_columns: tuple[int, int],
    s: int,
    tile_rows: int,
) -> Tensor:
    """Order labels by tile and block; pixels of blocks that are outside the image are ignored.

    Args:
        labels: uint8 [B, H, W].
        first: first row and column of the image in the upsampled scores before cropping.
        block_rows: first row of blocks in the image, and the one after the last.
        block_columns: first column of blocks in the image, and the one after the last.
        s: stride of the upsampling.
        tile_rows: rows of a block in a tile.

    Returns:
        Labels uint8 [tiles, B*h'*w', tile_rows * s].
    """
    (above, below), (left, right) = (
        (first - start * s, end * s - first - length)
        for (start, end), length in zip((block_rows, block_columns), labels.shape[1:], strict=True)
    )
    padded = F.pad(labels, (left, right, above, below), value=IGNORE_INDEX)
    height, width = block_rows[1] - block_rows[0], block_columns[1] - block_columns[0]
    blocks = padded.view(len(labels), height, s // tile_rows, tile_rows, width, s)
    blocks = _permute(blocks, "batch block_y tile row block_x column -> tile batch block_y block_x row column")
    return blocks.reshape(s // tile_rows, -1, tile_rows * s).contiguous()


class _UpsampleCrossEntropy(torch.autograd.Function):
    """Loss of the product of scores [G, N, K] and kernels [tiles, G, K, C/G * T] for labels [tiles, N, T].

    N is the number of blocks and T the number of pixels of a block in a tile; the loss of each block is multiplied by
    its factor [N]. All inputs are float32, products have the given precision. Gradients are computed together with the
    loss, in float32; the backward pass only multiplies them by the gradient of the loss.
    """

    @staticmethod
    def forward(
        ctx: Any,
        left: Tensor,
        kernels: Tensor,
        labels: Tensor,
        factors: Tensor,
        pixel_loss: PixelLoss,
        precision: torch.dtype,
    ) -> Tensor:
        groups, blocks, k = left.shape
        pixels = labels.shape[2]
        each = kernels.shape[3] // pixels  # classes of a group
        chunk = max(1, MAX_TILE_SCORES.get(left.device.type, MAX_TILE_SCORES["cuda"]) // (groups * each * pixels))
        chunks = [slice(i, i + chunk) for i in range(0, blocks, chunk)]
        unit: Tensor | None = None
        if precision == torch.float16:
            # The gradient of a mean over millions of pixels underflows in float16. Factors are therefore divided by
            # the largest one while gradients are float16, and the float32 results are multiplied by it again.
            unit = factors.amax().clamp_min(torch.finfo(torch.float32).tiny)
            factors = factors / unit
        left, kernels = _align(left.to(precision), 2), _align(kernels.to(precision), 2)
        losses: list[Tensor] = []
        left_grads: dict[int, Tensor] = {}  # by the first block of a chunk, summed over tiles
        kernel_grads: dict[int, Tensor] = {}  # by tile, summed over chunks
        for tile, kernel in enumerate(kernels):
            for some in chunks:
                scores = torch.bmm(left[:, some], kernel)
                by_class = _permute(
                    scores.view(groups, -1, each, pixels), "group block class pixel -> block group class pixel"
                ).view(-1, groups * each, pixels)
                losses.append(cross_entropy_(by_class, labels[tile, some], factors[some], pixel_loss))
                # From here on, `scores` are the gradient of the scores.
                if ctx.needs_input_grad[0]:
                    _add(left_grads, some.start, _matmul_float32(scores, kernel.mT))
                if ctx.needs_input_grad[1]:
                    _add(kernel_grads, tile, _matmul_float32(left[:, some].mT, scores))
        left_grad = _cat(list(left_grads.values()), 1)[..., :k] if left_grads else None
        kernel_grad = (
            _cat([grad.unsqueeze(0) for grad in kernel_grads.values()], 0)[..., :k, :] if kernel_grads else None
        )
        total = sum(losses[1:], start=losses[0])
        if unit is not None:
            total = total * unit
            left_grad, kernel_grad = (None if grad is None else grad * unit for grad in (left_grad, kernel_grad))
        ctx.save_for_backward(left_grad, kernel_grad)
        return total

    @staticmethod
    def backward(ctx: Any, *grad_loss: Tensor) -> tuple[Tensor | None, ...]:
        grads = (None if grad is None else grad * grad_loss[0] for grad in ctx.saved_tensors)
        return *grads, None, None, None, None


def _align(matrices: Tensor, dim: int) -> Tensor:
    """Pad a dimension with zeros to a multiple of `_ALIGNMENT` on CUDA."""
    missing = -matrices.shape[dim] % _ALIGNMENT
    if matrices.device.type == "cpu" or not missing:
        return matrices
    return F.pad(matrices, (0, 0) * (matrices.dim() - 1 - dim) + (0, missing))


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
