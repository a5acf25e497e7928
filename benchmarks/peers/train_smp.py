"""Training as in segmentation_models_pytorch's notebooks for several classes: albumentations, its statistics.

The step is `shared_step` of examples/camvid_segmentation_multiclass.ipynb, with torch's cross entropy instead of Dice,
which the other peers do not use. Without albumentations, the data are those of train_torchvision.py; `AUGMENTATION` is
the name of the library that augments.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import segmentation_models_pytorch as smp
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as BaseDataset

from benchmarks.peers import train_torchvision

try:
    import albumentations as A
    import cv2
    from albumentations.pytorch import ToTensorV2
except ModuleNotFoundError:
    A = None

CLASSES = 21
AUGMENTATION = "albumentations" if A is not None else "torchvision.transforms.v2"


class VOCDataset(BaseDataset[tuple[Tensor, Tensor]]):
    def __init__(self, pairs: Sequence[tuple[Path, Path]], augmentation: Callable[..., dict[str, Tensor]]) -> None:
        self.pairs = pairs
        self.augmentation = augmentation

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        image = cv2.cvtColor(cv2.imread(str(self.pairs[i][0])), cv2.COLOR_BGR2RGB)
        mask = np.array(Image.open(self.pairs[i][1]))
        sample = self.augmentation(image=image, mask=mask)
        return sample["image"], sample["mask"].long()

    def __len__(self) -> int:
        return len(self.pairs)


def training_dataset(pairs: Sequence[tuple[Path, Path]], crop: tuple[int, int]) -> BaseDataset[tuple[Tensor, Tensor]]:
    if A is None:
        return train_torchvision.VOCSegmentation(pairs, train_torchvision.preset(crop))
    augmentation = A.Compose(
        [
            A.HorizontalFlip(p=0.5),
            A.PadIfNeeded(*crop, border_mode=cv2.BORDER_CONSTANT, fill=0, fill_mask=255),
            A.RandomCrop(*crop),
            A.Normalize(),
            ToTensorV2(),
        ]
    )
    return VOCDataset(pairs, augmentation)


def shared_step(
    model: nn.Module, loss_fn: nn.Module, image: Tensor, mask: Tensor, device: str, bf16: bool
) -> tuple[Tensor, tuple[Tensor, ...]]:
    with torch.autocast(device, dtype=torch.bfloat16, enabled=bf16):
        logits_mask = model(image).contiguous()
        loss = loss_fn(logits_mask, mask)
    prob_mask = logits_mask.softmax(dim=1)
    pred_mask = prob_mask.argmax(dim=1)
    stats = smp.metrics.get_stats(pred_mask, mask, mode="multiclass", num_classes=CLASSES, ignore_index=255)
    return loss, stats


def epochs(
    net: nn.Module,
    pairs: Sequence[tuple[Path, Path]],
    crop: tuple[int, int],
    batch: int,
    palette: list[list[int]],  # noqa: ARG001 - masks are read as class numbers
    loading: dict[str, Any],
    device: str = "cpu",
    bf16: bool = False,
) -> Callable[[], int]:
    """Return a function that trains for one epoch and returns the number of images.

    Args:
        net: the network.
        pairs: image and mask files.
        crop: height and width in pixels.
        batch: images per step.
        palette: colors of the classes in masks.
        loading: further options of the loader.
        device: `cpu` or `cuda`.
        bf16: use bfloat16 autocast.
    """
    loader = DataLoader(training_dataset(pairs, crop), batch_size=batch, shuffle=True, drop_last=True, **loading)
    net.to(device)
    optimizer = torch.optim.Adam(net.parameters(), lr=2e-4)
    loss_fn = nn.CrossEntropyLoss(ignore_index=255)

    def epoch() -> int:
        net.train()
        outputs = []
        for image, mask in loader:
            image, mask = image.to(device, non_blocking=True), mask.to(device, non_blocking=True)
            loss, stats = shared_step(net, loss_fn, image, mask, device, bf16)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            outputs.append([stat.sum() for stat in stats])
        return batch * len(outputs)

    return epoch
