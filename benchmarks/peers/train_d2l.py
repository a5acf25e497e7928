"""Training as in d2l.ai: sections 14.9 (VOC) and 14.11 (FCN), with d2l.train_batch_ch13.

All images are read into memory once; each is cropped when it is asked for. Void borders become background.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F


def voc_colormap2label(colormap: Sequence[Sequence[int]]) -> Tensor:
    colormap2label = torch.zeros(256**3, dtype=torch.long)
    for i, color in enumerate(colormap):
        colormap2label[(color[0] * 256 + color[1]) * 256 + color[2]] = i
    return colormap2label


def voc_label_indices(colormap: Tensor, colormap2label: Tensor) -> Tensor:
    pixels = colormap.permute(1, 2, 0).numpy().astype("int32")
    idx = (pixels[:, :, 0] * 256 + pixels[:, :, 1]) * 256 + pixels[:, :, 2]
    return colormap2label[idx]


def voc_rand_crop(feature: Tensor, label: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    rect = torchvision.transforms.RandomCrop.get_params(feature, (height, width))
    feature = torchvision.transforms.functional.crop(feature, *rect)
    label = torchvision.transforms.functional.crop(label, *rect)
    return feature, label


class VOCSegDataset(torch.utils.data.Dataset[tuple[Tensor, Tensor]]):
    def __init__(
        self, pairs: Sequence[tuple[Path, Path]], crop_size: tuple[int, int], colormap: Sequence[Sequence[int]]
    ) -> None:
        self.transform = torchvision.transforms.Normalize(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225])
        self.crop_size = crop_size
        mode = torchvision.io.image.ImageReadMode.RGB
        self.features = [self.normalize_image(torchvision.io.read_image(str(image))) for image, _ in pairs]
        self.labels = [torchvision.io.read_image(str(mask), mode) for _, mask in pairs]
        self.colormap2label = voc_colormap2label(colormap)

    def normalize_image(self, img: Tensor) -> Tensor:
        return self.transform(img.float() / 255)

    def __getitem__(self, idx: int) -> tuple[Tensor, Tensor]:
        feature, label = voc_rand_crop(self.features[idx], self.labels[idx], *self.crop_size)
        return (feature, voc_label_indices(label, self.colormap2label))

    def __len__(self) -> int:
        return len(self.features)


def loss(inputs: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(inputs, targets, reduction="none").mean(1).mean(1)


def accuracy(y_hat: Tensor, y: Tensor) -> float:
    y_hat = y_hat.argmax(dim=1)
    cmp = y_hat.type(y.dtype) == y
    return float(cmp.type(y.dtype).sum())


def train_batch_ch13(
    net: nn.Module,
    X: Tensor,
    y: Tensor,
    loss: Callable[[Tensor, Tensor], Tensor],
    trainer: torch.optim.Optimizer,
    device: str,
    bf16: bool,
) -> tuple[Tensor, float]:
    X = X.to(device, non_blocking=True)
    y = y.to(device, non_blocking=True)
    net.train()
    trainer.zero_grad()
    with torch.autocast(device, dtype=torch.bfloat16, enabled=bf16):
        pred = net(X)
        l = loss(pred, y)
    l.sum().backward()
    trainer.step()
    train_loss_sum = l.sum()
    train_acc_sum = accuracy(pred, y)
    return train_loss_sum, train_acc_sum


def epochs(
    net: nn.Module,
    pairs: Sequence[tuple[Path, Path]],
    crop: tuple[int, int],
    batch: int,
    palette: list[list[int]],
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
    voc_train = VOCSegDataset(pairs, crop, palette)
    train_iter = torch.utils.data.DataLoader(voc_train, batch, shuffle=True, drop_last=True, **loading)
    net.to(device)
    trainer = torch.optim.SGD(net.parameters(), lr=0.001, weight_decay=1e-3)

    def epoch() -> int:
        metric = [0.0, 0.0, 0, 0]
        for features, labels in train_iter:
            l, acc = train_batch_ch13(net, features, labels, loss, trainer, device, bf16)
            metric = [a + float(b) for a, b in zip(metric, (l, acc, labels.shape[0], labels.numel()), strict=True)]
        return int(metric[2])

    return epoch
