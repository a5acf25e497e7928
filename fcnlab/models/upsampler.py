"""What brings scores back to the input's size, and how it starts."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn


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


class TransposedUpsampler(nn.ConvTranspose2d):
    """Upsampling of class scores by an even `factor` s: kernel 2s, stride s, padding s/2.

    [B, C, h, w] becomes [B, C, s*h, s*w]. Started `bilinear`, it equals bilinear interpolation with
    ``align_corners=False`` but for s/2 pixels at the border, where zeros are padded; class c reads class c alone.
    Started `random`, it is torch's default initialisation of a transposed convolution.

    `dense` reads every class for every class (4 s^2 C^2 weights), `per_class` one kernel for each (4 s^2 C).
    """

    def __init__(
        self,
        classes: int,
        factor: int,
        *,
        start: Literal["bilinear", "random"] = "bilinear",
        channels: Literal["dense", "per_class"] = "dense",
        learned: bool = True,
        bias: bool = False,
    ) -> None:
        if factor < 2 or factor % 2:
            raise ValueError(f"an upsampling factor must be even, not {factor}")
        self.start = start
        groups = classes if channels == "per_class" else 1
        super().__init__(classes, classes, 2 * factor, stride=factor, padding=factor // 2, groups=groups, bias=bias)
        self.requires_grad_(learned)

    def reset_parameters(self) -> None:
        """Start again; a bias, where there is one, always starts as torch starts it."""
        super().reset_parameters()
        if self.start == "bilinear":
            kernel = bilinear_kernel(self.kernel_size[0])
            with torch.no_grad():
                self.weight.zero_()
                if self.groups == 1:
                    diagonal = torch.arange(self.in_channels)
                    self.weight[diagonal, diagonal] = kernel
                else:
                    self.weight[:, 0] = kernel
