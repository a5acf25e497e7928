"""Training as in torchvision's references/segmentation/train.py, with the transforms of its presets.py."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import tv_tensors
from torchvision.transforms import v2

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class VOCSegmentation(Dataset[tuple[Tensor, Tensor]]):
    # torchvision.datasets.VOCSegmentation, of given files
    def __init__(self, pairs: Sequence[tuple[Path, Path]], transforms: Callable[..., tuple[Tensor, Tensor]]) -> None:
        self.pairs = pairs
        self.transforms = transforms

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        img = Image.open(self.pairs[index][0]).convert("RGB")
        target = Image.open(self.pairs[index][1])
        return self.transforms(tv_tensors.Image(v2.functional.pil_to_tensor(img)),
                               tv_tensors.Mask(v2.functional.pil_to_tensor(target)[0]))  # fmt: skip

    def __len__(self) -> int:
        return len(self.pairs)


def preset(crop: tuple[int, int], resize: tuple[int, int] | None = None) -> v2.Transform:
    # presets.SegmentationPresetTrain on its tensor backend, whose PadIfSmaller is here RandomCrop(pad_if_needed=True)
    return v2.Compose(
        [
            *([v2.RandomResize(*resize, antialias=True)] if resize else []),
            v2.RandomHorizontalFlip(0.5),
            v2.RandomCrop(crop, pad_if_needed=True, fill={tv_tensors.Image: 0, tv_tensors.Mask: 255}),
            v2.ToDtype({tv_tensors.Image: torch.float32, tv_tensors.Mask: torch.int64}, scale=True),
            v2.Normalize(MEAN, STD),
            v2.ToPureTensor(),
        ]
    )


def loader(
    pairs: Sequence[tuple[Path, Path]],
    crop: tuple[int, int],
    batch: int,
    loading: dict[str, Any],
    resize: tuple[int, int] | None = None,
) -> DataLoader[tuple[Tensor, Tensor]]:
    """Return a loader of training batches.

    Args:
        pairs: image and mask files.
        crop: height and width in pixels.
        batch: images per batch.
        loading: further options of the loader.
        resize: range of the shorter side in pixels; None keeps the size.
    """
    return DataLoader(VOCSegmentation(pairs, preset(crop, resize)), batch, shuffle=True, drop_last=True, **loading)


def criterion(inputs: Tensor, target: Tensor) -> Tensor:
    return nn.functional.cross_entropy(inputs, target, ignore_index=255)


def train_one_epoch(
    model: nn.Module,
    criterion: Callable[[Tensor, Tensor], Tensor],
    optimizer: torch.optim.Optimizer,
    data_loader: DataLoader[tuple[Tensor, Tensor]],
    lr_scheduler: torch.optim.lr_scheduler.LRScheduler,
    device: str,
    bf16: bool = False,
) -> list[float]:
    model.train()
    logged = []
    for image, target in data_loader:
        image, target = image.to(device, non_blocking=True), target.to(device, non_blocking=True)
        with torch.autocast(device, dtype=torch.bfloat16, enabled=bf16):
            output = model(image)
            loss = criterion(output, target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        lr_scheduler.step()
        logged.append(loss.item())
    return logged


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
    batches = loader(pairs, crop, batch, loading)
    if device == "cuda":
        torch.backends.cudnn.benchmark = True  # as the reference sets it
    net.to(device)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4)
    steps = 30 * len(batches)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda x: max(0.0, 1 - x / steps) ** 0.9)
    return lambda: batch * len(train_one_epoch(net, criterion, optimizer, batches, schedule, device, bf16))
