"""The feature contract: what every backbone is, and how weights from a file get into one."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from fcnlab.errors import ModelError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Backbone(nn.Module):
    """Maps normalised images to feature maps by reduction.

    Attributes:
        body: the network itself; weights files have its names.
        channels: channels of each feature map, by reduction, such as ``{8: 128, 16: 256, 32: 512}``.
        mean, std: of the RGB images, scaled to 0..1, that the weights were trained with.
        still: modules that stay in evaluation mode while the rest trains, set by `fcnlab.training.freezing`.
    """

    body: nn.Module
    channels: dict[int, int]
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    still: tuple[nn.Module, ...] = ()

    def forward(self, images: Tensor) -> dict[int, Tensor]:
        """Map normalised images [B, 3, H, W] to features by reduction r, each [B, channels[r], ~H/r, ~W/r]."""
        raise NotImplementedError

    def module_of(self, reduction: int) -> str:
        """The name of the module in the body whose output is the map of a reduction."""
        raise NotImplementedError

    def train(self, mode: bool = True) -> Backbone:
        """Set training mode, but for what is to stay still."""
        super().train(mode)
        for module in self.still:
            module.eval()
        return self


def load_weights(backbone: Backbone, path: Path) -> None:
    """Load a state dict with timm's names from a local .safetensors or .pth file; a classifier in it is left out.

    Raises:
        ModelError: the file cannot be read, or its keys or shapes are not this model's.
    """
    state = read_state(path)
    own = backbone.body.state_dict()
    missing = sorted(own.keys() - state.keys())
    if missing:
        raise ModelError(
            f"{path}: does not fit: {len(missing)} of {len(own)} keys are missing, first '{missing[0]}'; "
            f"the file begins with '{next(iter(state), 'nothing')}'"
        )
    for key, value in own.items():
        if state[key].shape != value.shape:
            raise ModelError(
                f"{path}: '{key}' has shape {tuple(state[key].shape)}, the model's is {tuple(value.shape)}"
            )
    backbone.body.load_state_dict({key: state[key] for key in own})


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
