"""Evaluation as in torchvision's references/segmentation, of a network as in the FCN chapter of d2l.ai.

ResNet-18 without its pooling and classifier, a 1x1 convolution, and a learned dense transposed convolution of kernel 64
and stride 32 that starts bilinear; one image at a time, float32, NCHW.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torchvision
from torch import Tensor, nn
from torchvision.transforms import functional as T

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def network(num_classes: int) -> nn.Sequential:
    pretrained_net = torchvision.models.resnet18(weights=None)
    net = nn.Sequential(*list(pretrained_net.children())[:-2])
    net.add_module("final_conv", nn.Conv2d(512, num_classes, kernel_size=1))
    transpose_conv = nn.ConvTranspose2d(num_classes, num_classes, kernel_size=64, padding=16, stride=32)
    transpose_conv.weight.data.copy_(bilinear_kernel(num_classes, num_classes, 64))
    net.add_module("transpose_conv", transpose_conv)
    return net


def bilinear_kernel(in_channels: int, out_channels: int, kernel_size: int) -> Tensor:
    factor = (kernel_size + 1) // 2
    center = factor - 1 if kernel_size % 2 == 1 else factor - 0.5
    og = (torch.arange(kernel_size).reshape(-1, 1), torch.arange(kernel_size).reshape(1, -1))
    filt = (1 - torch.abs(og[0] - center) / factor) * (1 - torch.abs(og[1] - center) / factor)
    weight = torch.zeros((in_channels, out_channels, kernel_size, kernel_size))
    weight[range(in_channels), range(out_channels), :, :] = filt
    return weight


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
