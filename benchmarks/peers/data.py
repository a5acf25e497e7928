"""Training batches as torchvision's users make them: a Dataset that decodes with Pillow, and transforms.v2.

The transforms are those of torchvision's reference for segmentation (references/segmentation/presets.py) on its tensor
backend, with its `PadIfSmaller` replaced by `RandomCrop(pad_if_needed=True)`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import tv_tensors
from torchvision.transforms import v2

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Segmentation(Dataset[tuple[Tensor, Tensor]]):
    """Pairs of an image file and a mask file."""

    def __init__(self, pairs: Sequence[tuple[Path, Path]], transform: v2.Transform) -> None:
        self.pairs = pairs
        self.transform = transform

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image_path, mask_path = self.pairs[index]
        with Image.open(image_path) as image, Image.open(mask_path) as mask:
            picture = tv_tensors.Image(v2.functional.pil_to_tensor(image.convert("RGB")))
            labels = tv_tensors.Mask(v2.functional.pil_to_tensor(mask)[0])
        return self.transform(picture, labels)


def transform(crop: tuple[int, int], resize: tuple[int, int] | None) -> v2.Transform:
    """Return the transforms of a training sample.

    Args:
        crop: height and width in pixels.
        resize: range of the shorter side in pixels; None keeps the size.
    """
    fill = {tv_tensors.Image: [round(255 * value) for value in MEAN], tv_tensors.Mask: 255}
    return v2.Compose(
        [
            *([v2.RandomResize(*resize, antialias=True)] if resize else []),
            v2.RandomHorizontalFlip(0.5),
            v2.RandomCrop(crop, pad_if_needed=True, fill=fill),
            v2.ToDtype({tv_tensors.Image: torch.float32, tv_tensors.Mask: torch.int64}, scale=True),
            v2.Normalize(MEAN, STD),
            v2.ToPureTensor(),
        ]
    )


def loader(
    pairs: Sequence[tuple[Path, Path]],
    crop: tuple[int, int],
    batch: int,
    resize: tuple[int, int] | None,
    workers: int = 0,
) -> DataLoader[tuple[Tensor, Tensor]]:
    """Return a loader of training batches.

    Args:
        pairs: image and mask files.
        crop: height and width in pixels.
        batch: images per batch.
        resize: range of the shorter side in pixels; None keeps the size.
        workers: processes that make batches, with pinned memory; with 0, the calling process makes them on one core.
    """
    loading: dict[str, Any] = {
        "num_workers": workers,
        "pin_memory": workers > 0 and torch.cuda.is_available(),
        "persistent_workers": workers > 0,
    }
    data = Segmentation(pairs, transform(crop, resize))
    return DataLoader(data, batch_size=batch, shuffle=True, drop_last=True, **loading)
