"""Upsamplers of class scores: transposed convolution and interpolation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fcnlab.config.upsampler import Init

Channels = Literal["dense", "diagonal", "per_class"]


def bilinear_kernel(size: int) -> Tensor:
    """Return the kernel of two-dimensional bilinear interpolation: Long et al., CVPR 2015, section 3.3.

    With f = ceil(size / 2), each axis is 1 - |i - c| / f around the center c. A kernel of even size 2s interpolates by
    the factor s and sums to s^2, as Caffe's bilinear filler.

    Args:
        size: rows and columns.

    Returns:
        float32 [size, size].

    Example:
        >>> bilinear_kernel(4)[0].tolist()
        [0.0625, 0.1875, 0.1875, 0.0625]
    """
    factor = (size + 1) // 2
    center = factor - 1 if size % 2 == 1 else factor - 0.5
    ramp = 1 - (torch.arange(size, dtype=torch.float64) - center).abs() / factor
    return (ramp[:, None] * ramp[None, :]).float()


def crop(scores: Tensor, size: Sequence[int], offset: int = 0) -> Tensor:
    """Crop scores to a size.

    Args:
        scores: [B, num_classes, h, w].
        size: height and width of the result.
        offset: first row and column of the result; by default the upper left is kept, where all maps are aligned.

    Returns:
        [B, num_classes, *size].
    """
    if torch.compiler.is_exporting():
        # An exported slice is valid either for sizes that it crops or for all others; padding is valid for both.
        below, right = (offset + target - current for target, current in zip(size, scores.shape[-2:], strict=True))
        return F.pad(scores, (-offset, right, -offset, below))
    return scores[..., offset : offset + size[0], offset : offset + size[1]]


class TransposedUpsampler(nn.ConvTranspose2d):
    """Transposed convolution that upsamples class scores by a factor s: kernel 2s, stride s, padding s/2.

    Initialized with `bilinear`, it equals bilinear interpolation with ``align_corners=False`` except for s/2 pixels at
    the border, where zeros are padded: Long et al., CVPR 2015, section 3.3.

    Attributes:
        init: initialization of the weights.
        channels: connections between classes.
    """

    def __init__(
        self,
        num_classes: int,
        factor: int,
        *,
        init: Init = "bilinear",
        channels: Channels = "dense",
        learned: bool = True,
        bias: bool = False,
        kernel: int | None = None,
        padding: int | None = None,
    ) -> None:
        """Build the layer and initialize its weights.

        Args:
            num_classes: number of classes.
            factor: even factor s.
            init: `bilinear`, in which each class reads only itself; or PyTorch's initializations: `random`, the default
                of a transposed convolution, `xavier` (uniform), `kaiming` (normal), `normal` (deviation 0.01), `zero`.
            channels: `dense` connects all classes (4 s^2 C^2 weights for C classes); `diagonal` does so too, with zero
                initial weights between different classes; `per_class` has one kernel per class (4 s^2 C weights).
            learned: train the weights.
            bias: add a bias per class.
            kernel: kernel size, for heads that crop instead of padding; 2s by default.
            padding: padding, for the same heads; s/2 by default.

        Raises:
            ValueError: the factor is odd or below 2.
        """
        if factor < 2 or factor % 2:
            raise ValueError(f"an upsampling factor must be even, not {factor}")
        self.init = init
        self.channels = channels
        super().__init__(
            num_classes,
            num_classes,
            2 * factor if kernel is None else kernel,
            stride=factor,
            padding=factor // 2 if padding is None else padding,
            groups=num_classes if channels == "per_class" else 1,
            bias=bias,
        )
        self.requires_grad_(learned)

    def reset_parameters(self) -> None:
        """Initialize the weights again; a bias has PyTorch's initialization."""
        super().reset_parameters()
        with torch.no_grad():
            _initialize(self.weight, self.init)
            if self.groups == 1 and (self.init == "bilinear" or self.channels == "diagonal"):
                self.weight *= torch.eye(self.in_channels)[:, :, None, None]

    def forward(self, scores: Tensor, size: Sequence[int] | None = None) -> Tensor:
        """Upsample scores.

        Args:
            scores: [B, num_classes, h, w].
            size: height and width to crop to.

        Returns:
            [B, num_classes, s*h, s*w], or [B, num_classes, *size].
        """
        up = self._upsample_blocks(scores) if self._can_use_blocks(scores) else super().forward(scores)
        return up if size is None else crop(up, size)

    def _can_use_blocks(self, scores: Tensor) -> bool:
        """Return whether the faster product is valid: inference on the CPU with the default kernel and padding."""
        s = self.stride[0]
        return (
            not torch.compiler.is_compiling()  # which is so while exporting, too
            and torch.is_inference_mode_enabled()
            and scores.device.type == "cpu"
            and s >= _MIN_BLOCK
            and self.groups == 1
            and (self.kernel_size, self.padding) == ((2 * s, 2 * s), (s // 2, s // 2))
        )

    def _upsample_blocks(self, scores: Tensor) -> Tensor:
        """Compute the transposed convolution as one matrix product, [B, C, h, w] -> [B, C, s*h, s*w].

        With kernel 2s and stride s, the output consists of blocks of s x s pixels that each depend on 2 x 2 scores:
        the 4C scores of a block are multiplied by a matrix [4C, C*s*s]. PyTorch's transposed convolution on the CPU
        multiplies each score separately and adds the overlapping results, which is slower.
        """
        s, (batch, num_classes, height, width) = self.stride[0], scores.shape
        blocks = corners(scores).permute(0, 3, 4, 1, 2).reshape(-1, 4 * num_classes)
        weight = (
            self.weight.view(num_classes, num_classes, 2, s, 2, s)
            .permute(2, 4, 0, 1, 3, 5)
            .reshape(4 * num_classes, -1)
        )
        up = blocks @ weight if self.bias is None else torch.addmm(self.bias.repeat_interleave(s * s), blocks, weight)
        up = up.view(batch, height + 1, width + 1, num_classes, s, s).permute(0, 3, 1, 4, 2, 5)
        up = up.reshape(batch, num_classes, s * (height + 1), s * (width + 1))
        return up[..., s // 2 : -(s // 2), s // 2 : -(s // 2)]


def corners(scores: Tensor) -> Tensor:
    """Gather the 2 x 2 scores around each block of pixels, with zeros outside the border.

    Args:
        scores: [B, num_classes, h, w].

    Returns:
        [B, 4, C, h + 1, w + 1], in the order of the quarters of a kernel that they are multiplied by.
    """
    height, width = scores.shape[-2:]
    around = F.pad(scores, (1, 1, 1, 1))
    return torch.stack([around[..., y : y + height + 1, x : x + width + 1] for y in (1, 0) for x in (1, 0)], 1)


_MIN_BLOCK = 8
"""The smallest factor for which the matrix product is faster (measured with 21 classes)."""


def _initialize(weight: Tensor, init: Init) -> None:
    """Initialize weights [C, C or 1, k, k]; `random` keeps PyTorch's own initialization."""
    match init:
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
    """Interpolation of class scores, without weights.

    Attributes:
        factor: factor of the upsampling, before the scores are cropped.
        mode: `bilinear` or `nearest`.
        to_size: resize the scores to the requested size instead, as torchvision and mmsegmentation do; the step of the
            scores then differs from the factor unless the size is a multiple of it.
    """

    def __init__(self, factor: int, *, mode: Literal["bilinear", "nearest"], to_size: bool = False) -> None:
        super().__init__()
        self.factor, self.mode, self.to_size = factor, mode, to_size

    def forward(self, scores: Tensor, size: Sequence[int] | None = None) -> Tensor:
        """Upsample scores.

        Args:
            scores: [B, num_classes, h, w].
            size: height and width to crop to.

        Returns:
            [B, num_classes, s*h, s*w], or [B, num_classes, *size].
        """
        aligned = {"align_corners": False} if self.mode == "bilinear" else {}
        if self.to_size and size is not None:
            return F.interpolate(scores, size=tuple(size), mode=self.mode, **aligned)
        up = F.interpolate(scores, scale_factor=self.factor, mode=self.mode, **aligned)
        return up if size is None else crop(up, size)

    def extra_repr(self) -> str:
        return f"factor={self.factor}, mode={self.mode}" + (", to_size=True" if self.to_size else "")
