"""What brings scores up, to a shallower map or to the image, and how it starts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Start = Literal["bilinear", "random", "xavier", "kaiming", "normal", "zero"]
Channels = Literal["dense", "diagonal", "per_class"]


def bilinear_kernel(size: int) -> Tensor:
    """The two-dimensional bilinear interpolation kernel, [size, size].

    For an even size 2s it interpolates by s and sums to s^2. Long et al., CVPR 2015, section 3.3; the formula is the
    d2l chapter's, and that of Caffe's bilinear filler where the factor is even: with f = ceil(size / 2), each axis is
    1 - |i - c| / f around the centre c.
    """
    factor = (size + 1) // 2
    centre = factor - 1 if size % 2 == 1 else factor - 0.5
    ramp = 1 - (torch.arange(size, dtype=torch.float64) - centre).abs() / factor
    return (ramp[:, None] * ramp[None, :]).float()


def crop(scores: Tensor, size: Sequence[int], offset: int = 0) -> Tensor:
    """Cut [B, C, h, w] to `size`, from `offset` rows and columns on.

    Without an offset the upper left is kept: feature 0 covers pixel 0, so that is where grids align.
    """
    if torch.compiler.is_exporting():
        # An exported slice is bound to sizes where it cuts something off, or to those where it does not; this is not.
        below, right = (offset + wanted - there for wanted, there in zip(size, scores.shape[-2:], strict=True))
        return F.pad(scores, (-offset, right, -offset, below))
    return scores[..., offset : offset + size[0], offset : offset + size[1]]


class TransposedUpsampler(nn.ConvTranspose2d):
    """Upsampling of class scores by an even `factor` s: kernel 2s, stride s, padding s/2.

    [B, C, h, w] becomes [B, C, s*h, s*w], cut to `size` where one is given. Started `bilinear`, it equals bilinear
    interpolation with ``align_corners=False`` but for s/2 pixels at the border, where zeros are padded; class c reads
    class c alone. The other starts are torch's: `random` its default for a transposed convolution, `xavier` and
    `kaiming` their uniform and normal forms, `normal` of deviation 0.01, `zero`.

    `dense` reads every class for every class (4 s^2 C^2 weights); `diagonal` too, but starts with all of them zero
    that lead from one class to another; `per_class` has one kernel for each class (4 s^2 C) and never mixes them.

    `kernel` and `padding` are for the paper's nets, which pad nowhere and crop instead.
    """

    def __init__(
        self,
        classes: int,
        factor: int,
        *,
        start: Start = "bilinear",
        channels: Channels = "dense",
        learned: bool = True,
        bias: bool = False,
        kernel: int | None = None,
        padding: int | None = None,
    ) -> None:
        if factor < 2 or factor % 2:
            raise ValueError(f"an upsampling factor must be even, not {factor}")
        self.start = start
        self.channels = channels
        super().__init__(
            classes,
            classes,
            2 * factor if kernel is None else kernel,
            stride=factor,
            padding=factor // 2 if padding is None else padding,
            groups=classes if channels == "per_class" else 1,
            bias=bias,
        )
        self.requires_grad_(learned)

    def reset_parameters(self) -> None:
        """Start again; a bias, where there is one, always starts as torch starts it."""
        super().reset_parameters()
        with torch.no_grad():
            _start(self.weight, self.start)
            if self.groups == 1 and (self.start == "bilinear" or self.channels == "diagonal"):
                self.weight *= torch.eye(self.in_channels)[:, :, None, None]

    def forward(self, scores: Tensor, size: Sequence[int] | None = None) -> Tensor:
        """Map scores [B, C, h, w] to [B, C, s*h, s*w], or to [B, C, *size]."""
        up = self._by_blocks(scores) if self._may_go_by_blocks(scores) else super().forward(scores)
        return up if size is None else crop(up, size)

    def _may_go_by_blocks(self, scores: Tensor) -> bool:
        """Whether to take the faster way: for scoring on the CPU, where the geometry is the usual one."""
        s = self.stride[0]
        return (
            not torch.compiler.is_compiling()  # which is so while exporting, too
            and torch.is_inference_mode_enabled()
            and scores.device.type == "cpu"
            and s >= _BLOCKS_FROM
            and self.groups == 1
            and (self.kernel_size, self.padding) == ((2 * s, 2 * s), (s // 2, s // 2))
        )

    def _by_blocks(self, scores: Tensor) -> Tensor:
        """The same as one matrix product, [B, C, h, w] -> [B, C, s*h, s*w].

        Kernel 2s and stride s: the output falls into blocks of s x s pixels, and each reads the 2 x 2 scores around it
        alone. So 4C numbers a block are multiplied by [4C, C*s*s]. torch's transposed convolution on the CPU
        multiplies each score first and adds up what overlaps afterwards, and hands on another layout.
        """
        s, (batch, classes, height, width) = self.stride[0], scores.shape
        blocks = corners(scores).permute(0, 3, 4, 1, 2).reshape(-1, 4 * classes)
        weight = self.weight.view(classes, classes, 2, s, 2, s).permute(2, 4, 0, 1, 3, 5).reshape(4 * classes, -1)
        up = blocks @ weight if self.bias is None else torch.addmm(self.bias.repeat_interleave(s * s), blocks, weight)
        up = up.view(batch, height + 1, width + 1, classes, s, s).permute(0, 3, 1, 4, 2, 5)
        up = up.reshape(batch, classes, s * (height + 1), s * (width + 1))
        return up[..., s // 2 : -(s // 2), s // 2 : -(s // 2)]


def corners(scores: Tensor) -> Tensor:
    """The 2 x 2 scores around each block of pixels, zeros beyond the border: [B, C, h, w] -> [B, 4, C, h + 1, w + 1].

    In the order of a kernel's halves: what the first half of its rows and columns is multiplied with comes first.
    """
    height, width = scores.shape[-2:]
    around = F.pad(scores, (1, 1, 1, 1))
    return torch.stack([around[..., y : y + height + 1, x : x + width + 1] for y in (1, 0) for x in (1, 0)], 1)


_BLOCKS_FROM = 8
"""By smaller factors blocks are too small to be worth moving them (measured with 21 classes)."""


def _start(weight: Tensor, start: Start) -> None:
    """Fill the weights [C, C or 1, k, k] as they start; `random` is what torch has drawn already."""
    match start:
        case "bilinear":
            weight.copy_(bilinear_kernel(weight.shape[-1]).expand_as(weight))
        case "xavier":
            nn.init.xavier_uniform_(weight)
        case "kaiming":
            nn.init.kaiming_normal_(weight)
        case "normal":
            nn.init.normal_(weight, std=0.01)
        case "zero":
            nn.init.zeros_(weight)


class Interpolation(nn.Module):
    """Upsampling without weights: by the `factor` and aligned at the corner, or to whatever `size` is wanted.

    With `to_size` the scores are stretched to the size, as torchvision and mmsegmentation do; where that is no
    multiple, the grids of scores and image no longer have the same step.
    """

    def __init__(self, factor: int, *, mode: Literal["bilinear", "nearest"], to_size: bool = False) -> None:
        super().__init__()
        self.factor, self.mode, self.to_size = factor, mode, to_size

    def forward(self, scores: Tensor, size: Sequence[int] | None = None) -> Tensor:
        """Map scores [B, C, h, w] to [B, C, s*h, s*w], or to [B, C, *size]."""
        aligned = {"align_corners": False} if self.mode == "bilinear" else {}
        if self.to_size and size is not None:
            return F.interpolate(scores, size=tuple(size), mode=self.mode, **aligned)
        up = F.interpolate(scores, scale_factor=self.factor, mode=self.mode, **aligned)
        return up if size is None else crop(up, size)

    def extra_repr(self) -> str:
        return f"factor={self.factor}, mode={self.mode}" + (", to_size=True" if self.to_size else "")
