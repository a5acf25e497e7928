"""Measurement of whether this CPU trains faster in bf16 than in fp32, for `precision: auto`."""

from __future__ import annotations

import statistics
import time
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from fcnlab.data.json_cache import cache_file, read_json, write_json
from fcnlab.processor import get_processor_flags, get_processor_name

MIN_SPEEDUP = 1.1
"""bf16 is less accurate, so it has to be faster by more than the noise of the measurement."""
ROUNDS = 7


@cache
def is_bf16_faster() -> bool:
    """Return True if a convolution and its gradients are faster in bf16 than in fp32.

    It is measured once for each processor and version of torch, in about half a second; the result is kept in the
    cache, so that all processes of a user agree. Processors without instructions for bf16, on which it is emulated, are
    not measured.
    """
    if not has_bf16():
        return False
    machine = [get_processor_name(), get_processor_flags(), torch.__version__, torch.get_num_threads()]
    file = cache_file("precision", machine)
    speedup = read_json(file).get("bf16_speedup")
    if not isinstance(speedup, float):
        speedup = round(measure_speedup(), 3)
        write_json(file, {"processor": get_processor_name(), "bf16_speedup": speedup})
    return speedup >= MIN_SPEEDUP


def has_bf16() -> bool:
    """Return True if this processor has instructions for bf16, and torch uses them."""
    # The flags first: on processors without them, torch may be built without oneDNN and not have this operator.
    return "bf16" in get_processor_flags() and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def measure_speedup() -> float:
    """Measure how many times faster a convolution and its gradients are in bf16 than in fp32.

    Returns:
        The median of `ROUNDS` ratios of CPU times, each of two measurements in turn.
    """
    generator = torch.Generator().manual_seed(0)  # the global one belongs to the training
    with torch.inference_mode(False), torch.enable_grad():
        images = torch.randn(4, 64, 48, 48, generator=generator).contiguous(memory_format=torch.channels_last)
        weights = torch.randn(64, 64, 3, 3, generator=generator)
        for tensor in (images, weights):
            tensor.requires_grad_()
        for dtype in (torch.float32, torch.bfloat16):
            _time_step(images, weights, dtype)  # the first run selects and compiles the implementation
        ratios = [
            _time_step(images, weights, torch.float32) / _time_step(images, weights, torch.bfloat16)
            for _ in range(ROUNDS)
        ]
    return statistics.median(ratios)


def _time_step(images: Tensor, weights: Tensor, dtype: torch.dtype) -> float:
    """Return the CPU seconds of the convolution of a batch and its gradients, with casts as under autocast."""
    start = time.process_time()
    F.conv2d(images.to(dtype), weights.to(dtype), padding=1).float().sum().backward()
    return time.process_time() - start
