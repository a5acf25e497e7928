"""Columns of the table of samples that the augmentation kernels read, and loads of its values.

The table is int64 [B, COLUMNS]. Floats are stored as the bits of a float32, the steps as those of a float64. Columns of
the two axes follow each other, y before x. Import this module only where `is_triton_available` is true.
"""

from __future__ import annotations

import triton
import triton.language as tl

SOURCE, LABEL, IMAGE = tl.constexpr(0), tl.constexpr(1), tl.constexpr(2)
"""Offsets of the image and the label of a sample, and of the image after the color jitter."""
HEIGHT, WIDTH = tl.constexpr(3), tl.constexpr(4)
"""Size of the image."""
TOP, LEFT, ROWS, SHOWN = tl.constexpr(5), tl.constexpr(6), tl.constexpr(7), tl.constexpr(8)
"""Window of the resized image: its first row and column, and its numbers of rows and columns."""
FLIP = tl.constexpr(9)
"""1 if the padded crop is flipped left to right, else 0."""
TAPS_Y, TAPS_X = tl.constexpr(10), tl.constexpr(11)
"""Number of source positions of a resized position."""
SCALE_Y, SCALE_X = tl.constexpr(12), tl.constexpr(13)
"""Source pixels per resized pixel, for labels."""
BRIGHTNESS, CONTRAST, CONTRAST_REST = tl.constexpr(14), tl.constexpr(15), tl.constexpr(16)
"""Factors of the color jitter; a rest is 1 minus its factor."""
SATURATION, SATURATION_REST, HUE = tl.constexpr(17), tl.constexpr(18), tl.constexpr(19)
"""Further factors, and the shift of hue in turns."""
STEP_Y, STEP_X = tl.constexpr(20), tl.constexpr(21)
"""Source pixels per resized pixel in float64, for images."""
COLUMNS = tl.constexpr(22)
"""Number of columns."""


@triton.jit  # type: ignore[untyped-decorator]
def load_float(row, column: tl.constexpr):  # type: ignore[no-untyped-def]
    """Return a float32 of a row of the table."""
    return tl.load(row + column).to(tl.int32).to(tl.float32, bitcast=True)


@triton.jit  # type: ignore[untyped-decorator]
def load_integer(row, column: tl.constexpr):  # type: ignore[no-untyped-def]
    """Return an integer of a row of the table."""
    return tl.load(row + column).to(tl.int32)
