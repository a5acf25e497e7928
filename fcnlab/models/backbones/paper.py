"""The nets of the FCN paper: VGG-16, AlexNet and GoogLeNet without their classifiers, made fully convolutional.

Long, Shelhamer, Darrell, CVPR 2015, sections 3.1 and 4.1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor, nn
from torchvision.models import GoogLeNet, get_model_weights
from torchvision.models.googlenet import Inception

from fcnlab.errors import ModelError, nearest
from fcnlab.models.backbones.base import Backbone, load_state, out_of_reach
from fcnlab.models.backbones.chain import chained

MAPS: Mapping[str, Mapping[str, tuple[int, int]]] = {
    "vgg16": {"pool3": (8, 256), "pool4": (16, 512), "drop7": (32, 4096)},
    "alexnet": {"drop7": (32, 4096)},
    "googlenet": {"inception5b": (32, 1024)},
}
"""By net and layer: the reduction and the channels of the map that the layer makes."""

CLASSIFIER = {"vgg16": {"fc6": 0, "fc7": 3}, "alexnet": {"fc6": 1, "fc7": 4}}
"""Where torchvision keeps the linear layers that fc6 and fc7 are made of: their number in its `classifier`."""


class PaperBackbone(Backbone):
    """`vgg16`, `alexnet` or `googlenet` as torchvision has them, up to the layer before the last.

    The linear layers become the convolutions fc6 and fc7, and the first convolution is padded by so much (100 in the
    first two) that the scores reach over the whole image, whatever its size; heads of type `paper` crop them. Maps are
    taken after pooling, and pooling rounds sizes up, as in Caffe (torchvision's VGG and AlexNet round down, which is
    the same at 224x224). torchvision's ImageNet weights fit, under torchvision's names as under the body's own.

    AlexNet is torchvision's, of one tower and without response normalisation, where the authors had CaffeNet.

    Attributes:
        centres: the pixel of the image at which the first feature of each map is centred, by reduction.
    """

    def __init__(self, name: str, *, pretrained: bool = False) -> None:
        """Build `name`, with random weights or with torchvision's of ImageNet.

        Raises:
            ModelError: the paper has no such net, or the weights are out of reach.
        """
        super().__init__()
        if name not in BODIES:
            raise ModelError(f"the paper has no net '{name}'; {nearest(name, BODIES)}")
        self.name = name
        self.body: nn.Sequential = BODIES[name]()
        self.channels = dict(MAPS[name].values())
        self.chain = {reduction: layer for layer, (reduction, _) in MAPS[name].items()}
        self.centres = _centres(self.body, {layer: reduction for reduction, layer in self.chain.items()})
        if name == "googlenet":
            # torchvision's weights were trained by others, on images normalised to -1..1.
            self.mean = self.std = (0.5, 0.5, 0.5)
        if pretrained:
            load_state(self, _fetched(name), f"torchvision's {name}")

    def forward(self, images: Tensor) -> dict[int, Tensor]:
        """Map normalised images [B, 3, H, W] to features by reduction r, each [B, channels[r], h, w].

        h and w exceed H/r and W/r by what the padding adds.
        """
        maps = chained(self.body, images, MAPS[self.name], self.again)
        return {MAPS[self.name][layer][0]: map_ for layer, map_ in maps.items()}

    def module_of(self, reduction: int) -> str:
        """The name of the module in the body whose output is the map of a reduction."""
        return self.chain[reduction]

    def adapted(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """A state dict with torchvision's names under the body's own, its linear layers reshaped to convolutions."""
        if self.name not in CLASSIFIER:
            return state
        # The layers up to fc6 stand in torchvision's `features` in the same order.
        layers = [name for name, _ in self.body.named_children()]
        own = {f"features.{i}": name for i, name in enumerate(layers[: layers.index("fc6")])}
        own |= {f"classifier.{i}": name for name, i in CLASSIFIER[self.name].items()}
        shapes = {key: value.shape for key, value in self.body.state_dict().items()}
        found = {}
        for theirs, value in state.items():
            layer, _, kind = theirs.rpartition(".")
            key = f"{own.get(layer, layer)}.{kind}"
            linear = key in shapes and value.ndim == 2 and value.numel() == shapes[key].numel()
            found[key] = value.reshape(shapes[key]) if linear else value
        return found


def _vgg16() -> nn.Sequential:
    body, channels = nn.Sequential(), 3
    for stage, (convs, width) in enumerate([(2, 64), (2, 128), (3, 256), (3, 512), (3, 512)], start=1):
        for i in range(1, convs + 1):
            padding = 100 if (stage, i) == (1, 1) else 1
            body.add_module(f"conv{stage}_{i}", nn.Conv2d(channels, width, kernel_size=3, padding=padding))
            body.add_module(f"relu{stage}_{i}", nn.ReLU(inplace=True))
            channels = width
        body.add_module(f"pool{stage}", nn.MaxPool2d(2, stride=2, ceil_mode=True))
    return _started(_with_fully_connected(body, channels, kernel=7))


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
    return _started(_with_fully_connected(body, channels, kernel=6))


def _googlenet() -> nn.Sequential:
    net = GoogLeNet(aux_logits=False, init_weights=False)
    # Half a step of the deepest map more than for classification: without it nothing is left of images below 15x15.
    net.conv1.conv.padding = (3 + 16, 3 + 16)
    body = nn.Sequential()
    for name, layer in net.named_children():
        if name not in ("avgpool", "dropout", "fc"):
            body.add_module(name, layer)
    return body


BODIES: Mapping[str, Callable[[], nn.Sequential]] = {"vgg16": _vgg16, "alexnet": _alexnet, "googlenet": _googlenet}


def _with_fully_connected(body: nn.Sequential, channels: int, kernel: int) -> nn.Sequential:
    """The linear layers of the classifier but the last, as convolutions: section 3.1."""
    for name, width, size in (("6", channels, kernel), ("7", 4096, 1)):
        body.add_module(f"fc{name}", nn.Conv2d(width, 4096, kernel_size=size))
        body.add_module(f"relu{name}", nn.ReLU(inplace=True))
        body.add_module(f"drop{name}", nn.Dropout(0.5))
    return body


def _started(body: nn.Sequential) -> nn.Sequential:
    """He's start: torch's own takes the signal down in every layer, and nothing here normalises it again."""
    for layer in body:
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return body


def _centres(body: nn.Sequential, reductions: Mapping[str, int]) -> dict[int, float]:
    """The pixel at which the first feature of each map is centred, from the layers' kernels, strides and paddings."""
    found, centre, step = {}, 0.0, 1
    for name, layer in body.named_children():
        centre, step = _through(layer, centre, step)
        if name in reductions:
            found[reductions[name]] = centre
    return found


def _through(layer: nn.Module, centre: float, step: int) -> tuple[float, int]:
    """Map the pixel of the first feature before a layer, and the pixels from one to the next, to those after it."""
    if isinstance(layer, nn.Conv2d | nn.MaxPool2d):
        kernel, stride, padding = (
            v if isinstance(v, int) else int(v[0]) for v in (layer.kernel_size, layer.stride, layer.padding)
        )
        return centre + step * ((kernel - 1) / 2 - padding), step * stride
    if isinstance(layer, Inception):
        (both,) = {
            _through(branch, centre, step) for branch in layer.children()
        }  # they are concatenated, so they agree
        return both
    for part in layer.children():
        centre, step = _through(part, centre, step)
    return centre, step


def _fetched(name: str) -> dict[str, Tensor]:
    try:
        state: dict[str, Tensor] = get_model_weights(name)["IMAGENET1K_V1"].get_state_dict(progress=False)
        return state
    except (OSError, RuntimeError) as error:
        raise out_of_reach(f"torchvision's weights of '{name}'", error) from error
