"""Patches of torch and timm: exported pooling layers and padding accept images of any size."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from timm.layers import padding


@contextmanager
def export_pooling_of_any_size() -> Iterator[None]:
    """Export pooling layers and padding without guards on the image size, and without floating-point sizes.

    torch 2.11 computes the output size of pooling with `div_rtn`, which rounds down like C++ code: it tests whether
    there is a remainder. With symbolic shapes, this test becomes a guard of the exported program, such as
    `(images.size()[2] - 1) // 2 % 2 != 0`, and the program rejects images of all other sizes. Python's `//` already
    rounds down, and newer releases use it. This context manager replaces `div_rtn` by `//`; output sizes do not change.
    It must enclose `torch.export.export` and everything that traces the program again, such as `torch.onnx.export`.
    It has no effect on pooling if torch has no `div_rtn`.

    timm's padding for outputs of the `same` size, as in the shortcuts of a dilated ResNet-D, rounds a quotient of the
    size up with `math.ceil`, a node with which a program cannot be saved. It is computed in integers instead.
    """
    shapes: Any = getattr(torch, "_meta_registrations", None)
    replaced = ((shapes, "div_rtn", _floor_division), (padding, "get_same_padding", _compute_same_padding))
    with ExitStack() as patches:
        for module, name, function in replaced:
            if hasattr(module, name):
                patches.enter_context(_replace(module, name, function))
        yield


@contextmanager
def _replace(module: Any, name: str, function: Any) -> Iterator[None]:
    """Replace a function of a module, and restore it at the end."""
    original = getattr(module, name)
    setattr(module, name, function)
    try:
        yield
    finally:
        setattr(module, name, original)


def _floor_division(dividend: Any, divisor: Any) -> Any:
    return dividend // divisor


def _compute_same_padding(length: Any, kernel_size: int, stride: int, dilation: int) -> Any:
    """Return the rows or columns that give an output of ceil(length / stride), like timm's `get_same_padding`."""
    outputs = (length + stride - 1) // stride
    return max((outputs - 1) * stride + (kernel_size - 1) * dilation + 1 - length, 0)
