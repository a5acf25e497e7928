"""A patch of torch: exported pooling layers accept images of any size."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def export_pooling_of_any_size() -> Iterator[None]:
    """Export pooling layers without guards on the image size, also with releases of torch that add them.

    torch 2.11 computes the output size of pooling with `div_rtn`, which rounds down like C++ code: it tests whether
    there is a remainder. With symbolic shapes, this test becomes a guard of the exported program, such as
    `(images.size()[2] - 1) // 2 % 2 != 0`, and the program rejects images of all other sizes. Python's `//` already
    rounds down, and newer releases use it. This context manager replaces `div_rtn` by `//`; output sizes do not change.
    It must enclose `torch.export.export` and everything that traces the program again, such as `torch.onnx.export`.
    It has no effect if torch has no `div_rtn`.
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
