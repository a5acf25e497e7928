"""Base class of backbones, and loading of weights."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from torch import Tensor, nn

from fcnlab.errors import ModelError, first_line
from fcnlab.models.backbones.weights_file import read_tensors
from fcnlab.models.backbones.weights_match import MatchedWeights, match_weights
from fcnlab.normalization import IMAGENET_MEAN, IMAGENET_STD

OF_FCN = re.compile(r"backbone\.(body|tail)\.")
"""Prefix of the names of a backbone's weights in the state dict of an FCN."""


class Backbone(nn.Module):
    """Base class of the modules that compute feature maps from images.

    Attributes:
        body: the network; files of weights have its names.
        tail: layers after the deepest map, or None.
        channels: channels of each feature map, by reduction (nominal stride), such as ``{8: 128, 16: 256, 32: 512}``.
        centers: pixel at the center of the first feature of each map, for heads that crop; empty if
            feature 0 covers pixel 0.
        mean, std: mean and standard deviation of each channel of images in 0..1, for normalization; their length is
            the number of channels.
        fixed_size: the only height and width of images that the network accepts, or None.
        chain: name of the layer of each map, by reduction, if the body is a sequence of layers; else empty.
        checkpointed: layers of `chain` up to which activations are recomputed in the backward pass.
        eval_modules: modules that stay in evaluation mode in training, set by `fcnlab.training.freezing`.
    """

    body: nn.Module
    tail: nn.Module | None
    channels: dict[int, int]
    centers: Mapping[int, float] = MappingProxyType({})
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    fixed_size: tuple[int, int] | None = None
    chain: Mapping[int, str] = MappingProxyType({})
    checkpointed: frozenset[str] = frozenset()
    eval_modules: tuple[nn.Module, ...] = ()

    def __init__(self) -> None:
        super().__init__()
        self.tail = None

    @property
    def in_channels(self) -> int:
        """The number of channels of the images."""
        return len(self.mean)

    @property
    def networks(self) -> list[nn.Module]:
        """The body, and the tail if there is one."""
        return [module for module in (self.body, self.tail) if module is not None]

    def forward(self, images: Tensor) -> dict[int, Tensor]:
        """Compute feature maps.

        Args:
            images: normalized images [B, C, H, W].

        Returns:
            Maps by reduction r, each [B, channels[r], ~H/r, ~W/r].
        """
        raise NotImplementedError

    def layer_name(self, reduction: int) -> str:
        """Return the name of the module in the body that outputs a map.

        Args:
            reduction: reduction of the map.
        """
        raise NotImplementedError

    def checkpoint_activations(self, through: int | None = None) -> None:
        """Recompute activations in the backward pass instead of keeping them, which trades time for memory.

        Outputs, gradients and the statistics of batch norms do not change.

        Args:
            through: reduction of the last map to recompute; by default all layers.

        Raises:
            ModelError: the body is not a sequence of layers, or has no such map.
        """
        if not self.chain:
            raise ModelError(
                "activation_checkpointing: the backbone is not a sequence of layers; to save memory, set "
                "grad_accum_steps instead"
            )
        if through is not None and through not in self.chain:
            have = ", ".join(map(str, sorted(self.chain)))
            raise ModelError(f"activation_checkpointing: no map at stride {through}; the backbone has maps at {have}")
        self.checkpointed = frozenset(
            layer for stride, layer in self.chain.items() if through is None or stride <= through
        )

    def rename(self, name: str) -> str:
        """Return the body's key for the name under which a weight is published.

        Args:
            name: the published name.
        """
        return name

    def train(self, mode: bool = True) -> Backbone:
        """Set training mode; the modules of `eval_modules` stay in evaluation mode."""
        super().train(mode)
        for module in self.eval_modules:
            module.eval()
        return self


def weights_unavailable(weights: str, error: Exception) -> ModelError:
    """Return the error for weights that cannot be downloaded.

    Args:
        weights: subject of the message.
        error: the exception.
    """
    return ModelError(
        f"{weights} cannot be fetched ({first_line(error)}); run `fcnlab weights fetch` on a machine with a network "
        "and copy the files, or set the backbone's weights to a local file or to scratch"
    )


def load_weights(backbone: Backbone, path: Path, prefix: str | None = None) -> None:
    """Load a weights file of a backbone or of an FCN, such as a trial's `last.safetensors`.

    Args:
        backbone: changed in place.
        path: path of the file.
        prefix: prefix of the names in the file; None to find it.

    Raises:
        ModelError: the file cannot be read, or its keys or shapes do not match.
    """
    load_state(backbone, read_tensors(path), str(path), prefix)


def load_state(backbone: Backbone, tensors: Mapping[str, Tensor], source: str, prefix: str | None = None) -> None:
    """Load tensors with the names of the body, of its publication, or of an FCN.

    Other weights, such as those of a classifier or a head, are ignored. The first convolution of a network for RGB
    images is adapted to another number of channels, as timm does for its own weights.

    Args:
        backbone: changed in place.
        tensors: the weights by name.
        source: origin of the weights, for messages.
        prefix: prefix of the names; None to find it.

    Raises:
        ModelError: keys or shapes do not match.
    """
    state = match_backbone(backbone, tensors, source, prefix).state
    for module in backbone.networks:
        module.load_state_dict({key: state[key] for key in module.state_dict()})


def match_backbone(
    backbone: Backbone, tensors: Mapping[str, Tensor], source: str, prefix: str | None = None
) -> MatchedWeights:
    """Find the tensors of a backbone, which may be on the meta device.

    Args:
        backbone: the backbone.
        tensors: the weights by name.
        source: origin of the weights, for messages.
        prefix: prefix of the names; None to find it.

    Raises:
        ModelError: keys or shapes do not match.
    """
    own = {key: value for module in backbone.networks for key, value in module.state_dict().items()}

    def rename(name: str) -> str:
        of_fcn = OF_FCN.match(name)
        return name[of_fcn.end() :] if of_fcn is not None else backbone.rename(name)

    return match_weights(tensors, own, rename, source, prefix)
