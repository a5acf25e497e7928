"""The feature contract: what every backbone is, and how weights from a file get into one."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import torch
from torch import Tensor, nn

from fcnlab.errors import ModelError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

OF_FCN = re.compile(r"backbone\.(body|tail)\.")
"""What the names of a body's weights begin with in the weights of a whole FCN."""


class Backbone(nn.Module):
    """Maps normalised images to feature maps by reduction.

    Attributes:
        body: the network itself; weights files have its names.
        tail: what follows the deepest map, where there is such a thing; weights files have its names beside the body's.
        channels: channels of each feature map, by reduction, such as ``{8: 128, 16: 256, 32: 512}``.
        centres: the pixel of the image at which the first feature of each map is centred, for heads that crop; empty
            where the maps begin at the image's corner, feature 0 covering pixel 0.
        mean, std: of the RGB images, scaled to 0..1, that the weights were trained with.
        chain: where the body is a chain of layers, the one that makes the map of each reduction; empty elsewhere.
        again: those layers of the chain up to which nothing is kept for the backward pass, set by `recompute`.
        still: modules that stay in evaluation mode while the rest trains, set by `fcnlab.training.freezing`.
    """

    body: nn.Module
    tail: nn.Module | None
    channels: dict[int, int]
    centres: Mapping[int, float] = MappingProxyType({})
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    chain: Mapping[int, str] = MappingProxyType({})
    again: frozenset[str] = frozenset()
    still: tuple[nn.Module, ...] = ()

    def __init__(self) -> None:
        super().__init__()
        self.tail = None

    @property
    def networks(self) -> list[nn.Module]:
        """The body, and the tail where there is one: all that has weights."""
        return [module for module in (self.body, self.tail) if module is not None]

    def forward(self, images: Tensor) -> dict[int, Tensor]:
        """Map normalised images [B, 3, H, W] to features by reduction r, each [B, channels[r], ~H/r, ~W/r]."""
        raise NotImplementedError

    def module_of(self, reduction: int) -> str:
        """The name of the module in the body whose output is the map of a reduction."""
        raise NotImplementedError

    def recompute(self, through: int | None = None) -> None:
        """Trade time for memory: compute what lies up to the map of reduction `through`, or all, again when needed.

        Outputs, gradients and the statistics of batch norms stay what they are.

        Raises:
            ModelError: the body is no chain of layers, or has no such map.
        """
        if not self.chain:
            raise ModelError(
                "the backbone is no chain of layers that could be computed again; to save memory, have the recipe "
                "accumulate over parts of a batch"
            )
        if through is not None and through not in self.chain:
            have = ", ".join(map(str, sorted(self.chain)))
            raise ModelError(f"nothing to recompute up to stride {through}; the backbone has maps at {have}")
        self.again = frozenset(layer for stride, layer in self.chain.items() if through is None or stride <= through)

    def adapted(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """A state dict with the names and shapes of where such weights are published, under the body's own."""
        return state

    def train(self, mode: bool = True) -> Backbone:
        """Set training mode, but for what is to stay still."""
        super().train(mode)
        for module in self.still:
            module.eval()
        return self


def out_of_reach(weights: str, error: Exception) -> ModelError:
    """What is said where a hub does not answer."""
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return ModelError(
        f"{weights} cannot be fetched ({reason}); fetch them once where there is a network, name a local file as the "
        "backbone's weights, or start from scratch"
    )


def load_weights(backbone: Backbone, path: Path) -> None:
    """Load a local .safetensors or .pth file of a backbone or of a whole FCN, such as a trial's `last.safetensors`.

    Raises:
        ModelError: the file cannot be read, or its keys or shapes are not this model's.
    """
    load_state(backbone, read_state(path), str(path))


def load_state(backbone: Backbone, state: dict[str, Tensor], source: str) -> None:
    """Load a state dict that has the body's names, those it is published under, or those of a whole FCN.

    What else is in it, such as a classifier or a head, is left out.

    Raises:
        ModelError: keys or shapes are not this model's; the message begins with `source`.
    """
    begins = next(iter(state), "nothing")
    of_fcn = {key[len(found[0]) :]: value for key, value in state.items() if (found := OF_FCN.match(key))}
    state = backbone.adapted(of_fcn or state)
    modules = backbone.networks
    own = {key: value for module in modules for key, value in module.state_dict().items()}
    missing = sorted(own.keys() - state.keys())
    if missing:
        raise ModelError(
            f"{source}: does not fit: {len(missing)} of {len(own)} keys are missing, first '{missing[0]}'; "
            f"the file begins with '{begins}'"
        )
    for key, value in own.items():
        if state[key].shape != value.shape:
            raise ModelError(
                f"{source}: '{key}' has shape {tuple(state[key].shape)}, the model's is {tuple(value.shape)}"
            )
    for module in modules:
        module.load_state_dict({key: state[key] for key in module.state_dict()})


def read_state(path: Path) -> dict[str, Tensor]:
    """Read a state dict from a file, never unpickling anything but tensors.

    Raises:
        ModelError: missing, unreadable, or not a state dict.
    """
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ModelError(f"{path}: cannot be read as weights: {str(error).splitlines()[0]}") from error
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise ModelError(f"{path}: holds no state dict (a mapping of names to tensors)")
    return state
