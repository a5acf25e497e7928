"""FCN-32s, 16s and 8s on torchvision's backbones, as the FCN chapter of d2l.ai and torchvision build them.

The deepest map is scored by a 1x1 convolution; learned dense transposed convolutions that start bilinear bring scores
up, x2 to each skip and by the stride to the image.
"""

from __future__ import annotations

import torch
import torchvision
from torch import Tensor, nn
from torchvision.models._utils import IntermediateLayerGetter

LAYERS = {
    "resnet18": {"layer2": "8", "layer3": "16", "layer4": "32"},
    "resnet50": {"layer2": "8", "layer3": "16", "layer4": "32"},
    "mobilenetv2_100": {"6": "8", "13": "16", "17": "32"},
}
CHANNELS = {
    "resnet18": {"8": 128, "16": 256, "32": 512},
    "resnet50": {"8": 512, "16": 1024, "32": 2048},
    "mobilenetv2_100": {"8": 32, "16": 96, "32": 320},
}
SKIPS = {"fcn32s": [], "fcn16s": ["16"], "fcn8s": ["16", "8"]}


class FCN(nn.Module):
    def __init__(self, backbone: str, head: str, num_classes: int, frozen_batch_norm: bool = False) -> None:
        super().__init__()
        self.frozen_batch_norm = frozen_batch_norm
        if backbone == "mobilenetv2_100":
            body = torchvision.models.mobilenet_v2(weights=None).features
        else:
            body = getattr(torchvision.models, backbone)(weights=None)
        self.backbone = IntermediateLayerGetter(body, LAYERS[backbone])
        self.skips = SKIPS[head]
        channels = CHANNELS[backbone]
        self.score = nn.ModuleDict({r: nn.Conv2d(channels[r], num_classes, kernel_size=1) for r in ("32", *self.skips)})
        self.up2 = nn.ModuleDict({r: upsampling(num_classes, 2) for r in self.skips})
        self.up = upsampling(num_classes, int(self.skips[-1] if self.skips else 32))

        if frozen_batch_norm:
            for norm in self.norms():
                norm.requires_grad_(False)

    def norms(self) -> list[nn.Module]:
        return [module for module in self.backbone.modules() if isinstance(module, nn.BatchNorm2d)]

    def train(self, mode: bool = True) -> FCN:
        super().train(mode)
        if self.frozen_batch_norm:
            for norm in self.norms():
                norm.eval()
        return self

    def forward(self, x: Tensor) -> Tensor:
        features = self.backbone(x)
        scores = self.score["32"](features["32"])
        for r in self.skips:
            scores = self.up2[r](scores) + self.score[r](features[r])
        return self.up(scores)


def upsampling(num_classes: int, factor: int) -> nn.ConvTranspose2d:
    up = nn.ConvTranspose2d(num_classes, num_classes, kernel_size=2 * factor, padding=factor // 2, stride=factor)
    up.weight.data.copy_(bilinear_kernel(num_classes, num_classes, 2 * factor))
    return up


def bilinear_kernel(in_channels: int, out_channels: int, kernel_size: int) -> Tensor:
    factor = (kernel_size + 1) // 2
    center = factor - 1 if kernel_size % 2 == 1 else factor - 0.5
    og = (torch.arange(kernel_size).reshape(-1, 1), torch.arange(kernel_size).reshape(1, -1))
    filt = (1 - torch.abs(og[0] - center) / factor) * (1 - torch.abs(og[1] - center) / factor)
    weight = torch.zeros((in_channels, out_channels, kernel_size, kernel_size))
    weight[range(in_channels), range(out_channels), :, :] = filt
    return weight
