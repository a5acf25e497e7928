"""Pooling in exported programs that is not bound to the size of the traced images."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def export_pooling_of_any_size() -> Iterator[None]:
    """Export pooling layers for images of any size, also with releases of torch that add a guard for each.

    torch 2.11 computes the output size of pooling with `div_rtn`, a division that rounds down as C++ has to write it:
    it asks for the remainder. While shapes are symbolic, the question becomes a guard of the exported program, such as
    `(images.size()[2] - 1) // 2 % 2 != 0`, and the program refuses images of every other size. Python's `//` rounds
    down anyway; newer releases use it. This replaces the function by theirs as long as the context lasts, which
    changes no output size. Use it around `torch.export.export` and whatever traces the program again, such as
    `torch.onnx.export`. It does nothing where torch has no such function.
    """
    shapes: Any = getattr(torch, "_meta_registrations", None)
    original = getattr(shapes, "div_rtn", None)
    if original is None:
        yield
        return
    shapes.div_rtn = _floor_division
    try:
        yield
    finally:
        shapes.div_rtn = original


def _floor_division(dividend: Any, divisor: Any) -> Any:
    return dividend // divisor
