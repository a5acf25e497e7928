"""Timings of confusion counts: fcnlab, torchmetrics and numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.speed import peer
from benchmarks.speed.machine import machine, threads
from benchmarks.speed.pairs import pairs
from fcnlab.metrics.confusion import count_areas
from fcnlab.metrics.summary import Counts

SIZE = (320, 480)
CLASSES = 21
BATCH = 8


def compare(images: int = 64, repeats: int = 5) -> dict[str, Any]:
    """Time the counting of masks of 320x480 with 21 classes and ignored pixels, in batches of 8.

    Each side gets the masks in its fastest type: torchmetrics and the FCN authors' function int64, numpy's fused key
    and fcnlab uint8.

    Args:
        images: number of masks.
        repeats: number of pairs of timings.

    Returns:
        JSON-able results.

    Raises:
        RunError: torchmetrics is not installed.
    """
    theirs = peer("confusion")
    narrow = masks(images)
    wide = [(predictions.long(), labels.long()) for predictions, labels in narrow]
    ways = {
        "torchmetrics": lambda: theirs.torchmetrics_counts(wide, CLASSES),
        "numpy, masked (fast_hist)": lambda: theirs.numpy_counts(wide, CLASSES),
        "numpy, fused uint16 key": lambda: theirs.numpy_fused_counts(narrow, CLASSES),
    }

    def ours() -> int:
        _count(narrow)
        return images

    with threads(1):
        wanted = _count(narrow).sum(0)
        compared = {}
        for name, way in ways.items():
            joint = torch.as_tensor(way()).numpy()
            assert np.array_equal(joint.diagonal(), wanted[:, 0]) and np.array_equal(joint.sum(1), wanted[:, 2]), name
            compared[name] = pairs(ours, lambda way=way: (way(), images)[1], repeats).to_json()  # type: ignore[misc]
        return {
            "images": images,
            "size": SIZE,
            "classes": CLASSES,
            "batch": BATCH,
            "comparisons": compared,
            "machine": vars(machine("torchmetrics")),
            "notes": ["one thread each; the same masks and counts on both sides"],
        }


def masks(images: int) -> list[tuple[Tensor, Tensor]]:
    """Make batches of predictions and labels, uint8 [8, 320, 480]: shifted blocks of a class with an ignored border.

    Args:
        images: number of masks in all.
    """
    rng = np.random.default_rng(0)
    made = []
    for _ in range(0, images, BATCH):
        blocks = rng.integers(0, CLASSES, (BATCH, SIZE[0] // 32, SIZE[1] // 32), dtype=np.uint8)
        labels = np.kron(blocks, np.ones((1, 32, 32), dtype=np.uint8))
        predictions = np.roll(labels, (3, 5), (1, 2))
        labels[:, :16] = 255
        made.append((torch.from_numpy(predictions), torch.from_numpy(labels)))
    return made


def _count(batches: list[tuple[Tensor, Tensor]]) -> Counts:
    return np.concatenate([count_areas(*batch, CLASSES).numpy() for batch in batches])
