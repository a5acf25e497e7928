"""Training as in segmentation_models_pytorch's notebooks for several classes: albumentations, its statistics.

The step is `shared_step` of examples/camvid_segmentation_multiclass.ipynb, with torch's cross entropy in the place of
Dice, which the others do not take.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import albumentations as A
import cv2
import numpy as np
import segmentation_models_pytorch as smp
import torch
from albumentations.pytorch import ToTensorV2
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as BaseDataset

CLASSES = 21


class VOCDataset(BaseDataset[tuple[Tensor, Tensor]]):
    def __init__(self, pairs: Sequence[tuple[Path, Path]], augmentation: A.Compose) -> None:
        self.pairs = pairs
        self.augmentation = augmentation

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        image = cv2.cvtColor(cv2.imread(str(self.pairs[i][0])), cv2.COLOR_BGR2RGB)
        mask = np.array(Image.open(self.pairs[i][1]))
        sample = self.augmentation(image=image, mask=mask)
        return sample["image"], sample["mask"].long()

    def __len__(self) -> int:
        return len(self.pairs)


def get_training_augmentation(crop: tuple[int, int]) -> A.Compose:
    return A.Compose(
        [
            A.HorizontalFlip(p=0.5),
            A.PadIfNeeded(*crop, border_mode=cv2.BORDER_CONSTANT, fill=0, fill_mask=255),
            A.RandomCrop(*crop),
            A.Normalize(),
            ToTensorV2(),
        ]
    )


def shared_step(model: nn.Module, loss_fn: nn.Module, image: Tensor, mask: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
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
) -> Callable[[], int]:
    """Trains for an epoch at each call, in this process alone; returns how many images it was."""
    dataset = VOCDataset(pairs, get_training_augmentation(crop))
    loader = DataLoader(dataset, batch_size=batch, shuffle=True, drop_last=True, num_workers=0)
    optimizer = torch.optim.Adam(net.parameters(), lr=2e-4)
    loss_fn = nn.CrossEntropyLoss(ignore_index=255)

    def epoch() -> int:
        net.train()
        outputs = []
        for image, mask in loader:
            loss, stats = shared_step(net, loss_fn, image, mask)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            outputs.append([stat.sum() for stat in stats])
        return batch * len(outputs)

    return epoch
