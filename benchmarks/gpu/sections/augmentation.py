"""Training batches on the device compared with those on the CPU, for every kind of augmentation."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu.results import SectionFailed
from benchmarks.gpu.sections.images import of_one_size, various
from benchmarks.gpu.sections.settings import AcceptSettings, triton
from fcnlab.config.augmentation import ColorJitter, GaussianBlur
from fcnlab.data.augmentation import Augmentation
from fcnlab.data.batches import TrainingBatches
from fcnlab.data.datasets.base import Split
from fcnlab.data.decoded import DecodedSplit
from fcnlab.kernels.switch import is_triton_available

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
FILL = (124, 116, 104)
ONE_LEVEL = 1.01
"""Largest difference of an image, in gray levels of 0..255, with some room for the rounding of the normalization."""

STAGED = 10**9
"""Simulated number of trials per device: no sample stays there, and each batch is staged."""


def cases(settings: AcceptSettings) -> dict[str, Augmentation]:
    """Return every kind of augmentation by its name.

    Args:
        settings: settings of the run.
    """
    height, width = (40, 56) if settings.smoke else (320, 400)

    def of(scale: tuple[float, float] | None = None, flip: float = 0.0, **options: Any) -> Augmentation:
        return Augmentation((height, width), scale, flip, FILL, **options)

    everything = ColorJitter(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1)
    return {
        "crop": of(),
        "flip": of(flip=1.0),
        "pad": Augmentation((2 * height, 2 * width), None, 0.5, FILL),
        "larger": of((1.1, 2.0), 0.5),
        "smaller": of((0.25, 0.9), 0.5),
        "scale": of((0.25, 1.25), 0.5),
        "rotate": of(rotate=15.0),
        "brightness": of(jitter=ColorJitter(brightness=0.4)),
        "contrast": of(jitter=ColorJitter(contrast=0.4)),
        "saturation": of(jitter=ColorJitter(saturation=0.4)),
        "hue": of(jitter=ColorJitter(hue=0.1)),
        "jitter": of(jitter=everything),
        "blur": of(blur=GaussianBlur(probability=1.0, sigma=(0.1, 2.0))),
        "cat_max_ratio": of((0.5, 2.0), 0.5, cat_max_ratio=0.5),
        "combined": of(
            (0.5, 2.0),
            0.5,
            jitter=everything,
            cat_max_ratio=0.75,
            rotate=10.0,
            blur=GaussianBlur(probability=0.5, sigma=(0.1, 2.0)),
        ),
    }


def augmentation(settings: AcceptSettings) -> dict[str, Any]:
    """Compare batches of the CPU and of the device: labels equal, images within one gray level.

    Args:
        settings: settings of the run.
    """
    device = torch.device(settings.device)
    same_size, source = of_one_size(settings, 8)
    splits = {source: same_size, "various sizes": various(settings)}
    ways = {"plain": ("0", 1), "plain, staged": ("0", STAGED)}
    if is_triton_available(device):
        ways |= {"triton": ("1", 1), "triton, staged": ("1", STAGED)}
    found: dict[str, dict[str, Any]] = {}
    for name, kind in cases(settings).items():
        for images, split in splits.items():
            with triton("0"):
                wanted = list(_batches(split, kind, torch.device("cpu")))
            for way, (switch, trials_per_device) in ways.items():
                with triton(switch):
                    got = list(_batches(split, kind, device, trials_per_device))
                found[f"{name}, {images}, {way}"] = _difference(got, wanted)
    wrong = {name: d for name, d in found.items() if d["labels"] or d["gray_levels"] > ONE_LEVEL}
    worst = max(found, key=lambda name: found[name]["gray_levels"])
    result = {"ways": list(ways), "cases": found, "wrong": sorted(wrong)}
    if wrong:
        name, difference = next(iter(wrong.items()))
        raise SectionFailed(f"{len(wrong)} of {len(found)} cases differ: {name}: {difference}", result)
    detail = f"{len(found)} cases ({', '.join(ways)}), at most {found[worst]['gray_levels']:.2f} gray levels ({worst})"
    return result | {"detail": detail}


def _batches(
    split: Split, kind: Augmentation, device: torch.device, trials_per_device: int = 1
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the batches of two epochs on the CPU: images in gray levels and labels."""
    batches = TrainingBatches(
        DecodedSplit(split),
        batch_size=len(split) // 4,
        augmentation=kind,
        mean=MEAN,
        std=STD,
        seed=0,
        device=device,
        trials_per_device=trials_per_device,
    )
    mean, std = (torch.tensor(values, dtype=torch.float64)[:, None, None] for values in (MEAN, STD))
    for epoch in range(2):
        copies = [(images.clone(), labels.clone()) for images, labels in batches.epoch(epoch)]
        for images, labels in copies:  # all are made before the first one is waited for
            assert images.device.type == labels.device.type == device.type, f"the batch is on {images.device}"
            assert images.is_contiguous(memory_format=torch.channels_last), "images are not in channels-last layout"
            yield 255 * (images.cpu().double() * std + mean), labels.cpu().clone()


def _difference(got: list[tuple[Tensor, Tensor]], wanted: list[tuple[Tensor, Tensor]]) -> dict[str, Any]:
    """Return the number of unequal labels, the largest difference of images, and the number of unequal values."""
    labels, values, total, largest = 0, 0, 0, 0.0
    for (images, classes), (images_wanted, classes_wanted) in zip(got, wanted, strict=True):
        labels += int((classes != classes_wanted).sum())
        errors = (images - images_wanted).abs()
        largest = max(largest, float(errors.max()))
        values += int((errors > 0.01).sum())
        total += errors.numel()
    return {"labels": labels, "gray_levels": round(largest, 4), "different": round(values / total, 6)}
