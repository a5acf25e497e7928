"""Training as in segmentation_models_pytorch's notebooks for several classes: albumentations, its statistics.

The step is `shared_step` of examples/camvid_segmentation_multiclass.ipynb, with torch's cross entropy instead of Dice,
which the other peers do not use. Without albumentations, torchvision's v2 transforms augment, and without OpenCV,
Pillow reads the images; `AUGMENTATION` is the name of the library that augments.
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
from torchvision import tv_tensors
from torchvision.transforms import v2

try:
    import cv2
except ModuleNotFoundError:
    cv2 = None
try:
    import albumentations as A
    from albumentations.pytorch import ToTensorV2
except ModuleNotFoundError:
    A = None

CLASSES = 21
AUGMENTATION = "albumentations" if A is not None else "torchvision.transforms.v2"

Augmentation = Callable[..., dict[str, Tensor]]
"""Takes `image`, uint8 [H, W, 3], and `mask`, uint8 [H, W]; returns both under these names as tensors."""


class VOCDataset(BaseDataset[tuple[Tensor, Tensor]]):
    def __init__(self, pairs: Sequence[tuple[Path, Path]], augmentation: Augmentation) -> None:
        self.pairs = pairs
        self.augmentation = augmentation

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        image = read_image(self.pairs[i][0])
        mask = np.array(Image.open(self.pairs[i][1]))
        sample = self.augmentation(image=image, mask=mask)
        return sample["image"], sample["mask"].long()

    def __len__(self) -> int:
        return len(self.pairs)


def read_image(path: Path) -> np.ndarray:
    if cv2 is None:
        return np.array(Image.open(path).convert("RGB"))
    return cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)


def get_training_augmentation(crop: tuple[int, int]) -> Augmentation:
    if A is None:
        return torchvision_augmentation(crop)
    return A.Compose(
        [
            A.HorizontalFlip(p=0.5),
            A.PadIfNeeded(*crop, border_mode=cv2.BORDER_CONSTANT, fill=0, fill_mask=255),
            A.RandomCrop(*crop),
            A.Normalize(),
            ToTensorV2(),
        ]
    )


def torchvision_augmentation(crop: tuple[int, int]) -> Augmentation:
    transform = v2.Compose(
        [
            v2.RandomHorizontalFlip(0.5),
            v2.RandomCrop(crop, pad_if_needed=True, fill={tv_tensors.Image: 0, tv_tensors.Mask: 255}),
            v2.ToDtype({tv_tensors.Image: torch.float32, "others": None}, scale=True),
            v2.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
            v2.ToPureTensor(),
        ]
    )

    def augmentation(image: np.ndarray, mask: np.ndarray) -> dict[str, Tensor]:
        pixels = tv_tensors.Image(torch.from_numpy(image).permute(2, 0, 1))
        augmented, labels = transform(pixels, tv_tensors.Mask(torch.from_numpy(mask)))
        return {"image": augmented, "mask": labels}

    return augmentation


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
    device: str = "cpu",
    workers: int = 0,
    bf16: bool = False,
) -> Callable[[], int]:
    """Return a function that trains for one epoch and returns the number of images.

    Args:
        net: the network.
        pairs: image and mask files.
        crop: height and width in pixels.
        batch: images per step.
        palette: colors of the classes in masks.
        device: `cpu` or `cuda`.
        workers: processes that load the data.
        bf16: use bfloat16 autocast.
    """
    dataset = VOCDataset(pairs, get_training_augmentation(crop))
    loading: dict[str, Any] = {
        "num_workers": workers,
        "pin_memory": device == "cuda",
        "persistent_workers": workers > 0,
    }
    loader = DataLoader(dataset, batch_size=batch, shuffle=True, drop_last=True, **loading)
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
