"""The last upsampling of a network as products of matrices that are ordered by blocks of pixels.

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

Its result is ordered by block. Labels and predictions, one byte per pixel, are brought into or out of this order
instead of the scores, which have 4C or 2C bytes per pixel. The product is computed in tiles: on the CPU a tile has some
blocks and some of their rows, so that it fits the cache. On CUDA there is one tile, as long as it fits
`MAX_TILE_SCORES`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from fcnlab.constants import IGNORE_INDEX
from fcnlab.models import TransposedUpsampler
from fcnlab.models.heads import CoarseHead, Head
from fcnlab.models.upsampler import corners

MIN_TILE_PIXELS = 128
"""Smallest number of pixels of a block in one tile on the CPU; on CUDA a tile has whole blocks."""
MAX_TILE_SCORES = {"cpu": 2**20, "cuda": 2**28}
"""Largest number of scores in a tile, by device: on a CPU those of a thread fit its cache; 0.5 to 1 GB on CUDA."""


def has_blocks(head: Head) -> bool:
    """Return True if a head ends in a transposed convolution whose blocks of pixels depend on 2 x 2 scores.

    Args:
        head: head of a network.
    """
    return (
        # An extension's head or upsampling may compute its scores in another way.
        isinstance(head, CoarseHead)
        and type(head).forward is CoarseHead.forward
        and isinstance(head.upsample, TransposedUpsampler)
        and type(head.upsample).forward is TransposedUpsampler.forward
        and head.upsample.kernel_size[0] <= 2 * head.upsample.stride[0]
    )


class BlockGrid(NamedTuple):
    """The blocks that cover the images of a batch.

    Attributes:
        size: height and width of the images.
        stride: s, rows and columns of a block.
        first: first row and column of the images in the upsampled scores before cropping.
        tile_rows: rows of a block in a tile.
    """

    size: tuple[int, int]
    stride: int
    first: int
    tile_rows: int

    @classmethod
    def of(cls, head: CoarseHead, size: Sequence[int], device: torch.device) -> BlockGrid:
        """Return the blocks of a head's last upsampling.

        Args:
            head: a head for which `has_blocks` is true.
            size: height and width of the images.
            device: device of the scores; it determines the tiles.
        """
        assert isinstance(head.upsample, TransposedUpsampler), "has_blocks requires it"
        s = head.upsample.stride[0]
        first = int(head.upsample.padding[0]) + head.offset
        return cls((size[0], size[1]), s, first, _choose_tile_rows(s, device))

    @property
    def rows(self) -> slice:
        """The rows of blocks in the images."""
        return self._blocks_along(0)

    @property
    def columns(self) -> slice:
        """The columns of blocks in the images."""
        return self._blocks_along(1)

    def gather_corners(self, scores: Tensor) -> Tensor:
        """Gather the scores at the corners of each block, in float32.

        Args:
            scores: coarse scores [B, C, h, w].

        Returns:
            [B, 4, C, h', w'], where h' and w' are the rows and columns of blocks.
        """
        # In float32, so that the four terms of a score's gradient are added before they are rounded.
        return corners(scores.float())[..., self.rows, self.columns]

    def to_blocks(self, labels: Tensor) -> Tensor:
        """Order labels by tile and block; pixels of blocks that are outside the image are ignored.

        Args:
            labels: uint8 [B, H, W].

        Returns:
            Labels uint8 [tiles, B*h'*w', tile_rows * s].
        """
        (above, below), (left, right) = self._margins(0), self._margins(1)
        padded = F.pad(labels, (left, right, above, below), value=IGNORE_INDEX)
        blocks = padded.view(len(labels), -1, self._tiles, self.tile_rows, self._count(self.columns), self.stride)
        blocks = permute(blocks, "batch block_y tile row block_x column -> tile batch block_y block_x row column")
        return blocks.reshape(self._tiles, -1, self.tile_rows * self.stride).contiguous()

    def to_images(self, blocks: Tensor) -> Tensor:
        """Order pixels by image: the inverse of `to_blocks`.

        Args:
            blocks: pixels [tiles, B*h'*w', tile_rows * s].

        Returns:
            [B, H, W].
        """
        (above, _), (left, _), (height, width) = self._margins(0), self._margins(1), self.size
        counts = self._count(self.rows), self._count(self.columns)
        pixels = blocks.view(self._tiles, -1, *counts, self.tile_rows, self.stride)
        pixels = permute(pixels, "tile batch block_y block_x row column -> batch block_y tile row block_x column")
        pixels = pixels.reshape(-1, counts[0] * self.stride, counts[1] * self.stride)
        return pixels[:, above : above + height, left : left + width].contiguous()

    @property
    def _tiles(self) -> int:
        return self.stride // self.tile_rows

    def _blocks_along(self, side: int) -> slice:
        return slice(self.first // self.stride, -(-(self.first + self.size[side]) // self.stride))

    def _margins(self, side: int) -> tuple[int, int]:
        """Return the pixels of blocks before and after the image."""
        blocks = self._blocks_along(side)
        return self.first - blocks.start * self.stride, blocks.stop * self.stride - self.first - self.size[side]

    @staticmethod
    def _count(blocks: slice) -> int:
        return int(blocks.stop - blocks.start)


def count_independent_groups(upsample: TransposedUpsampler) -> int:
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


def permute(tensor: Tensor, pattern: str) -> Tensor:
    """Permute named dimensions: `permute(x, "row column class -> class row column")`."""
    source, target = (side.split() for side in pattern.split("->"))
    return tensor.permute([source.index(name) for name in target])


def scores_as_matrix(corner_scores: Tensor, groups: int, *, bias: bool) -> Tensor:
    """Return the left side of the product that upsamples.

    Args:
        corner_scores: [B, 4, C, h', w'], the 2 x 2 scores at the corners of each block.
        groups: G, the number of groups of classes that do not mix; each has C / G classes.
        bias: the kernel has a row for the bias, which is multiplied by 1.

    Returns:
        [G, B*h'*w', K] with K = 4C/G, and one more with a bias.
    """
    batch, four, num_classes, height, width = corner_scores.shape
    by_group = corner_scores.view(batch, four, groups, num_classes // groups, height, width)
    matrix = permute(by_group, "batch corner group class y x -> group batch y x corner class")
    matrix = matrix.reshape(groups, -1, four * num_classes // groups)
    return torch.cat([matrix, matrix.new_ones(groups, matrix.shape[1], 1)], 2) if bias else matrix


def kernel_as_matrices(upsample: TransposedUpsampler, groups: int, tile_rows: int) -> Tensor:
    """Return the right sides of the product that upsamples, one per tile.

    Args:
        upsample: the upsampling, for its kernel and bias.
        groups: G, the number of groups of classes that do not mix; each has C / G classes.
        tile_rows: rows of a block in a tile.

    Returns:
        [tiles, G, K, C/G * tile_rows * s] with K = 4C/G, and one more if there is a bias.
    """
    s, num_classes, weight = upsample.stride[0], upsample.in_channels, upsample.weight
    if groups > upsample.groups:  # only the weights of each class for itself are needed
        weight = weight.diagonal().movedim(-1, 0).unsqueeze(1)
    group_classes, tiles = num_classes // groups, s // tile_rows
    missing = 2 * s - upsample.kernel_size[0]
    quarters = F.pad(weight, (0, missing, 0, missing)).view(
        groups, group_classes, group_classes, 2, tiles, tile_rows, 2, s
    )
    matrices = permute(
        quarters,
        "group class_in class_out y_half tile row x_half column -> "
        "tile group y_half x_half class_in class_out row column",
    )
    matrices = matrices.reshape(tiles, groups, 4 * group_classes, group_classes * tile_rows * s)
    if upsample.bias is None:
        return matrices
    bias = upsample.bias.unsqueeze(1).expand(-1, tile_rows * s).reshape(groups, 1, -1)
    return torch.cat([matrices, bias.expand(tiles, -1, -1, -1)], 2)


def compute_tiles(left: Tensor, kernels: Tensor, pixels: int) -> Iterator[tuple[int, slice, Tensor, Tensor]]:
    """Upsample tile by tile; the caller may overwrite the scores of a tile.

    Args:
        left: scores [G, N, K] of N blocks, as `scores_as_matrix` returns them.
        kernels: [tiles, G, K, C/G * T], as `kernel_as_matrices` returns them.
        pixels: T, the number of pixels of a block in a tile.

    Yields:
        The index of the rows of blocks, the n blocks of the tile, their scores [G, n, C/G * T], and the same memory as
        [n, C, T].
    """
    groups, num_blocks, _ = left.shape
    group_classes = kernels.shape[3] // pixels
    # As many blocks as `MAX_TILE_SCORES` allows.
    threads = torch.get_num_threads() if left.device.type == "cpu" else 1
    chunk = max(1, threads * MAX_TILE_SCORES[left.device.type] // (groups * group_classes * pixels))
    for number, kernel in enumerate(kernels):
        for start in range(0, num_blocks, chunk):
            blocks = slice(start, start + chunk)
            scores = torch.bmm(left[:, blocks], kernel)
            by_class = permute(
                scores.view(groups, -1, group_classes, pixels), "group block class pixel -> block group class pixel"
            ).view(-1, groups * group_classes, pixels)
            yield number, blocks, scores, by_class
