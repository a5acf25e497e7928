"""The networks of the FCN paper: VGG-16, AlexNet and GoogLeNet as fully convolutional networks.

Long, Shelhamer, Darrell, CVPR 2015, sections 3.1 and 4.1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor, nn
from torchvision.models import GoogLeNet, get_model_weights
from torchvision.models.googlenet import Inception

from fcnlab.errors import ModelError, nearest
from fcnlab.models.backbones.base import Backbone, load_state, weights_unavailable
from fcnlab.models.backbones.chain import run_chain

MAPS: Mapping[str, Mapping[str, tuple[int, int]]] = {
    "vgg16": {"pool3": (8, 256), "pool4": (16, 512), "drop7": (32, 4096)},
    "alexnet": {"drop7": (32, 4096)},
    "googlenet": {"inception5b": (32, 1024)},
}
"""Reduction and channels of the maps, by network and layer."""

CLASSIFIER = {"vgg16": {"fc6": 0, "fc7": 3}, "alexnet": {"fc6": 1, "fc7": 4}}
"""Index of the linear layers of fc6 and fc7 in torchvision's `classifier`."""


class PaperBackbone(Backbone):
    """torchvision's `vgg16`, `alexnet` or `googlenet` up to the last but one layer.

    The linear layers become the convolutions fc6 and fc7, and the first convolution is padded (by 100 in VGG-16 and
    AlexNet), so that the scores cover images of any size; heads of type `paper` crop them. Maps are outputs of pooling
    layers, which round sizes up as in Caffe. torchvision's ImageNet weights can be loaded. AlexNet is torchvision's,
    with one tower and without response normalization; the authors used CaffeNet.
    """

    def __init__(self, name: str, *, pretrained: bool = False) -> None:
        """Build the network with its last layers as convolutions.

        Args:
            name: `vgg16`, `alexnet` or `googlenet`.
            pretrained: load torchvision's ImageNet weights instead of a random initialization.

        Raises:
            ModelError: there is no such network, or the weights cannot be downloaded.
        """
        super().__init__()
        if name not in BODIES:
            raise ModelError(f"the paper has no network '{name}'; {nearest(name, BODIES)}")
        self.name = name
        self.body: nn.Sequential = BODIES[name]()
        self._published = _map_layers(name, self.body)
        self.channels = dict(MAPS[name].values())
        self.chain = {reduction: layer for layer, (reduction, _) in MAPS[name].items()}
        self.centers = _compute_centers(self.body, {layer: reduction for reduction, layer in self.chain.items()})
        if name == "googlenet":
            # torchvision's weights were trained by others, on images normalized to -1..1.
            self.mean = self.std = (0.5, 0.5, 0.5)
        if pretrained:
            load_state(self, _fetch(name), f"torchvision's {name}")

    def forward(self, images: Tensor) -> dict[int, Tensor]:
        """Compute feature maps.

        Args:
            images: normalized images [B, 3, H, W].

        Returns:
            Maps by reduction r, each [B, channels[r], h, w]; h and w exceed H/r and W/r because of the padding.
        """
        maps = run_chain(self.body, images, MAPS[self.name], self.checkpointed)
        return {MAPS[self.name][layer][0]: map_ for layer, map_ in maps.items()}

    def layer_name(self, reduction: int) -> str:
        return self.chain[reduction]

    def rename(self, name: str) -> str:
        """Return the body's key for torchvision's name of a weight.

        Args:
            name: torchvision's name, such as `features.0.weight`.
        """
        layer, _, kind = name.rpartition(".")
        return f"{self._published.get(layer, layer)}.{kind}"


def _map_layers(name: str, body: nn.Sequential) -> dict[str, str]:
    """Return the layers of the body by torchvision's names where these differ."""
    if name not in CLASSIFIER:
        return {}
    # The layers before fc6 are in torchvision's `features` in the same order.
    layers = [layer for layer, _ in body.named_children()]
    own = {f"features.{i}": layer for i, layer in enumerate(layers[: layers.index("fc6")])}
    return own | {f"classifier.{i}": layer for layer, i in CLASSIFIER[name].items()}


def _vgg16() -> nn.Sequential:
    body, channels = nn.Sequential(), 3
    for stage, (convs, width) in enumerate([(2, 64), (2, 128), (3, 256), (3, 512), (3, 512)], start=1):
        for i in range(1, convs + 1):
            padding = 100 if (stage, i) == (1, 1) else 1
            body.add_module(f"conv{stage}_{i}", nn.Conv2d(channels, width, kernel_size=3, padding=padding))
            body.add_module(f"relu{stage}_{i}", nn.ReLU(inplace=True))
            channels = width
        body.add_module(f"pool{stage}", nn.MaxPool2d(2, stride=2, ceil_mode=True))
    return _initialize(_append_fully_connected(body, channels, kernel=7))


def _alexnet() -> nn.Sequential:
    body, channels = nn.Sequential(), 3
    # Channels, kernel, stride and padding; whether pooling follows.
    layers = [(64, 11, 4, 100, True), (192, 5, 1, 2, True), (384, 3, 1, 1, False), (256, 3, 1, 1, False)]
    layers.append((256, 3, 1, 1, True))
    for i, (width, kernel, stride, padding, pooled) in enumerate(layers, start=1):
        body.add_module(f"conv{i}", nn.Conv2d(channels, width, kernel, stride=stride, padding=padding))
        body.add_module(f"relu{i}", nn.ReLU(inplace=True))
        if pooled:
            body.add_module(f"pool{i}", nn.MaxPool2d(3, stride=2, ceil_mode=True))
        channels = width
    return _initialize(_append_fully_connected(body, channels, kernel=6))


def _googlenet() -> nn.Sequential:
    net = GoogLeNet(aux_logits=False, init_weights=False)
    # Padded by half a step of the deepest map in addition; otherwise images below 15x15 have no features.
    net.conv1.conv.padding = (3 + 16, 3 + 16)
    body = nn.Sequential()
    for name, layer in net.named_children():
        if name not in ("avgpool", "dropout", "fc"):
            body.add_module(name, layer)
    return body


BODIES: Mapping[str, Callable[[], nn.Sequential]] = {"vgg16": _vgg16, "alexnet": _alexnet, "googlenet": _googlenet}


def _append_fully_connected(body: nn.Sequential, channels: int, kernel: int) -> nn.Sequential:
    """Append the linear layers of the classifier except the last as convolutions: section 3.1."""
    for name, width, size in (("6", channels, kernel), ("7", 4096, 1)):
        body.add_module(f"fc{name}", nn.Conv2d(width, 4096, kernel_size=size))
        body.add_module(f"relu{name}", nn.ReLU(inplace=True))
        body.add_module(f"drop{name}", nn.Dropout(0.5))
    return body


def _initialize(body: nn.Sequential) -> nn.Sequential:
    """Initialize as He et al. (ICCV 2015): PyTorch's default reduces the signal in each layer without normalization."""
    for layer in body:
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return body


def _compute_centers(body: nn.Sequential, reductions: Mapping[str, int]) -> dict[int, float]:
    """Compute the center pixel of each map's first feature from kernels, strides and paddings."""
    found, center, step = {}, 0.0, 1
    for name, layer in body.named_children():
        center, step = _map_center(layer, center, step)
        if name in reductions:
            found[reductions[name]] = center
    return found


def _map_center(layer: nn.Module, center: float, step: int) -> tuple[float, int]:
    """Map the center of the first feature, and the step in pixels between features, through a layer."""
    if isinstance(layer, nn.Conv2d | nn.MaxPool2d):
        kernel, stride, padding = (
            v if isinstance(v, int) else int(v[0]) for v in (layer.kernel_size, layer.stride, layer.padding)
        )
        return center + step * ((kernel - 1) / 2 - padding), step * stride
    if isinstance(layer, Inception):
        (both,) = {
            _map_center(branch, center, step) for branch in layer.children()
        }  # they are concatenated, so they agree
        return both
    for part in layer.children():
        center, step = _map_center(part, center, step)
    return center, step


def _fetch(name: str) -> dict[str, Tensor]:
    try:
        state: dict[str, Tensor] = get_model_weights(name)["IMAGENET1K_V1"].get_state_dict(progress=False)
        return state
    except (OSError, RuntimeError) as error:
        raise weights_unavailable(f"torchvision's weights of '{name}'", error) from error
