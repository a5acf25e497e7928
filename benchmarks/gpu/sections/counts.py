"""Pixel and boundary counts on the device compared with NumPy and SciPy."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from benchmarks.gpu.results import SectionFailed
from benchmarks.gpu.sections.settings import AcceptSettings
from fcnlab.metrics import boundary, confusion

IGNORE = 255
SHAPES = ((1, 1, 1), (3, 17, 23), (2, 96, 128), (4, 360, 480), (1, 375, 500), (5, 3, 401), (1, 1024, 2048))
"""Images, height, width."""
CLASSES = (2, 6, 11, 19, 21, 150)


def counts(settings: AcceptSettings) -> dict[str, Any]:
    """Compare counts of areas and boundaries, number by number.

    Args:
        settings: settings of the run.
    """
    device = torch.device(settings.device)
    random = np.random.default_rng(0)
    wrong: list[str] = []
    compared = 0
    shapes = SHAPES[:4] if settings.smoke else SHAPES
    for shape in shapes:
        for num_classes in CLASSES:
            for kind in ("random", "blobs", "ignored"):
                prediction, label = _images(random, shape, num_classes, kind)
                given, true = (torch.from_numpy(array).to(device) for array in (prediction, label))
                found = {
                    "areas": (confusion.count_areas(given, true, num_classes), _areas(prediction, label, num_classes)),
                    "boundaries": (
                        boundary.count_boundaries(given, true, num_classes),
                        _boundaries(prediction, label, num_classes),
                    ),
                }
                for what, (got, wanted) in found.items():
                    assert got.device.type == device.type, f"{what} were counted on {got.device}"
                    compared += 1
                    if not np.array_equal(got.cpu().numpy(), wanted):
                        wrong.append(f"{what} {shape} classes {num_classes} {kind}")
    result = {"compared": compared, "wrong": wrong}
    if wrong:
        raise SectionFailed(f"{len(wrong)} of {compared} counts differ, the first: {wrong[0]}", result)
    largest = max(shapes, key=math.prod)
    return result | {"detail": f"{compared} counts of up to {largest} pixels and 150 classes are equal"}


def _images(
    random: np.random.Generator, shape: tuple[int, int, int], num_classes: int, kind: str
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return predictions and labels, uint8 [N, H, W]: noise, patches of one class, or mostly ignored labels."""
    prediction, label = (random.integers(0, num_classes, shape).astype(np.uint8) for _ in range(2))
    if kind == "blobs":
        prediction, label = (_patches(array) for array in (prediction, label))
    label[random.random(shape) < (0.97 if kind == "ignored" else 0.1)] = IGNORE
    return prediction, label


def _patches(noise: NDArray[np.uint8], side: int = 24) -> NDArray[np.uint8]:
    coarse = noise[:, ::side, ::side]
    return np.ascontiguousarray(coarse.repeat(side, 1).repeat(side, 2)[:, : noise.shape[1], : noise.shape[2]])


def _areas(prediction: NDArray[np.uint8], label: NDArray[np.uint8], num_classes: int) -> NDArray[np.int64]:
    """Count [N, num_classes, 3] by the definition: agreement, predicted and labeled pixels that are not ignored."""
    counts = np.zeros((len(label), num_classes, 3), dtype=np.int64)
    for image, (p, t) in enumerate(zip(prediction, label, strict=True)):
        p, t = p[t != IGNORE], t[t != IGNORE]
        counts[image, :, 0] = np.bincount(t[p == t], minlength=num_classes)
        counts[image, :, 1] = np.bincount(p, minlength=num_classes)
        counts[image, :, 2] = np.bincount(t, minlength=num_classes)
    return counts


def _boundaries(prediction: NDArray[np.uint8], label: NDArray[np.uint8], num_classes: int) -> NDArray[np.int64]:
    """Count [N, num_classes, 3] of the pixels near another class or the border, with SciPy's filters."""
    distance = boundary.compute_boundary_width(*label.shape[1:])
    counts = np.zeros((len(label), num_classes, 3), dtype=np.int64)
    for image, (p, t) in enumerate(zip(prediction, label, strict=True)):
        p = np.where(t == IGNORE, np.uint8(IGNORE), p)
        p, t = (np.where(_near(of, distance) & (of != IGNORE), of.astype(np.int64), -1) for of in (p, t))
        counts[image, :, 0] = np.bincount(t[(p == t) & (t >= 0)], minlength=num_classes)
        counts[image, :, 1] = np.bincount(p[p >= 0], minlength=num_classes)
        counts[image, :, 2] = np.bincount(t[t >= 0], minlength=num_classes)
    return counts


def _near(labels: NDArray[np.uint8], distance: int) -> NDArray[np.bool_]:
    size = 2 * distance + 1
    least = ndimage.minimum_filter(labels, size, mode="nearest")
    most = ndimage.maximum_filter(labels, size, mode="nearest")
    near = least != most
    near[:distance], near[-distance:], near[:, :distance], near[:, -distance:] = True, True, True, True
    return near
