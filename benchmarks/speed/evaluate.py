"""Timings of evaluating ResNet-18 FCN-32s: fcnlab, and a loop as in torchvision's segmentation reference."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.speed import peer
from benchmarks.speed.machine import machine, multiplies_bf16, synchronized, threads
from benchmarks.speed.pairs import pairs
from fcnlab.constants import Precision
from fcnlab.data.datasets.base import Sample, Split
from fcnlab.data.decoded import DecodedSplit
from fcnlab.metrics.summary import Counts
from fcnlab.models import FCN, TimmBackbone, TransposedUpsampler
from fcnlab.models.heads.skip import SkipHead
from fcnlab.training import hardware
from fcnlab.training.evaluate import evaluate_split

SIZE = (320, 480)
CLASSES = 21
CPU = torch.device("cpu")


class _Noise(Split):
    """Images and labels of noise; the time does not depend on their content."""

    def __init__(self, images: int) -> None:
        self.ids = tuple(f"noise{index}" for index in range(images))
        rng = np.random.default_rng(0)
        shape = (images, *SIZE)
        self._images = rng.integers(0, 256, (*shape, 3), dtype=np.uint8)
        self._labels = rng.choice([*range(CLASSES), 255], shape).astype(np.uint8)

    def __getitem__(self, index: int) -> Sample:
        return Sample(self.ids[index], self._images[index], self._labels[index])


def compare(
    images: int = 16, repeats: int = 5, device: torch.device = CPU, report: Callable[[str], object] = lambda _: None
) -> dict[str, Any]:
    """Time the evaluation of decoded images of 320x480 with 21 classes.

    Both networks have the same weights and are on the same device.

    Args:
        images: number of images.
        repeats: number of pairs of timings.
        device: device of both networks.
        report: called with one line before each measurement.

    Returns:
        JSON-able results.
    """
    hardware.retain_freed_memory()
    theirs = peer("segmentation_eval")
    model, split = network(), DecodedSplit(_Noise(images))
    net = peer("networks").FCN("resnet18", "fcn32s", CLASSES)
    _copy_weights(model, net)
    model, net = model.to(device), net.to(device)
    samples = [(split[index].image.contiguous(), split[index].label) for index in range(images)]

    def ours(precision: Precision) -> Counts:
        autocast = hardware.create_autocast(device, precision)
        return evaluate_split(model, split, num_classes=CLASSES, autocast=autocast).areas

    def peers() -> int:
        theirs.evaluate(net, samples, CLASSES, device.type)
        return images

    with threads(1):
        predicted = theirs.evaluate(net, samples, CLASSES, device.type).mat.sum(0).cpu().numpy()
        compared: dict[str, dict[str, Any]] = {}
        agreement: dict[str, float] = {}
        precisions: tuple[Precision, ...] = ("fp32", "bf16")
        for precision in precisions:
            if precision == "bf16" and not multiplies_bf16(device):
                report("bf16 is left out: this device does not multiply it natively")
                continue
            report(f"timing {precision}: {repeats} pairs")
            found = ours(precision).sum(0)[:, 1]
            agreement[precision] = float(np.minimum(found, predicted).sum() / predicted.sum())
            one = synchronized(lambda p=precision: len(ours(p)), device)  # type: ignore[misc]
            compared[precision] = pairs(one, synchronized(peers, device), repeats).to_json()
        agreed = ", ".join(f"{100 * share:.3f} % {name}" for name, share in agreement.items())
        return {
            "images": images,
            "size": SIZE,
            "classes": CLASSES,
            "agreement": agreement,
            "device": device.type,
            "comparisons": compared,
            "machine": vars(machine("timm")),
            "notes": [
                f"both on {device.type}, one CPU thread each, both retain freed memory; the peer: one image at a time, "
                "float32, NCHW",
                f"predicted class frequencies that agree with the peer's: {agreed}",
            ],
        }


def network() -> FCN:
    """Build ResNet-18 FCN-32s with a learned dense transposed convolution and random weights."""

    def upsampler(num_classes: int, factor: int, stage: str, **geometry: int) -> nn.Module:  # noqa: ARG001
        return TransposedUpsampler(num_classes, factor, bias=True)

    torch.manual_seed(0)
    backbone = TimmBackbone("resnet18")
    model = FCN(backbone, SkipHead(backbone.channels, CLASSES, upsampler, stride=32))
    return model.to(memory_format=torch.channels_last)


def _copy_weights(model: FCN, net: nn.Module) -> None:
    """Copy fcnlab's weights to the peer's network; both have the same tensors in the same order."""
    state = net.state_dict()
    values = [value for name, value in model.state_dict().items() if ".fuse." not in name]
    assert [v.shape for v in values] == [v.shape for v in state.values()], "both are ResNet-18 FCN-32s"
    net.load_state_dict(dict(zip(state, (value.contiguous() for value in values), strict=True)))
