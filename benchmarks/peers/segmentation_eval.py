"""Evaluation as in torchvision's references/segmentation: one image at a time, float32, NCHW."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torchvision.transforms import functional as T

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class ConfusionMatrix:
    # references/segmentation/utils.py
    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes
        self.mat: Tensor | None = None

    def update(self, a: Tensor, b: Tensor) -> None:
        n = self.num_classes
        if self.mat is None:
            self.mat = torch.zeros((n, n), dtype=torch.int64, device=a.device)
        with torch.inference_mode():
            k = (a >= 0) & (a < n)
            inds = n * a[k].to(torch.int64) + b[k]
            self.mat += torch.bincount(inds, minlength=n**2).reshape(n, n)

    def compute(self) -> tuple[Tensor, Tensor, Tensor]:
        assert self.mat is not None, "no image was counted"
        h = self.mat.float()
        acc_global = torch.diag(h).sum() / h.sum()
        acc = torch.diag(h) / h.sum(1)
        iu = torch.diag(h) / (h.sum(1) + h.sum(0) - torch.diag(h))
        return acc_global, acc, iu


def evaluate(
    model: nn.Module,
    samples: Iterable[tuple[Tensor, Tensor]],
    num_classes: int,
    device: str = "cpu",
    bf16: bool = False,
) -> ConfusionMatrix:
    """Evaluate a network on decoded images, one at a time.

    Args:
        model: the network.
        samples: images uint8 [3, H, W] and labels uint8 [H, W], with sides divisible by 32.
        num_classes: number of classes.
        device: `cpu` or `cuda`.
        bf16: use bfloat16 autocast.
    """
    model.eval()
    confmat = ConfusionMatrix(num_classes)
    with torch.inference_mode():
        for image, target in samples:
            image, target = image.to(device, non_blocking=True), target.to(device, non_blocking=True)
            image = T.normalize(T.convert_image_dtype(image, torch.float32), MEAN, STD)[None]
            target = target.to(torch.int64)[None]
            with torch.autocast(device, dtype=torch.bfloat16, enabled=bf16):
                output = model(image)
            confmat.update(target.flatten(), output.argmax(1).flatten())
    return confmat
