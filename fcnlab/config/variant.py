"""Configuration of an FCN variant: backbone, head and upsampler."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import model_validator

from fcnlab.config.base import Config, Count, Entry, Truth
from fcnlab.config.head import AnyHead
from fcnlab.config.upsampler import AnyUpsampler
from fcnlab.errors import ConfigError

DEFAULT_UPSAMPLER = "bilinear"
"""Name of the upsampler of a variant that names none."""

WEIGHTS_SUFFIXES = (".safetensors", ".pth", ".pt", ".pth.tar", ".ckpt", ".bin")
"""Endings of the names of weights files; all but the first are checkpoints of PyTorch."""

VARIANT_COMPONENTS = ("backbone", "head", "upsampler")
"""The kinds of the registry that a variant consists of."""


class Backbone(Entry):
    """Configuration of a feature extractor and of the source of its weights.

    Attributes:
        timm: name of a timm model; or
        paper: one of the networks of Long et al. (CVPR 2015).
        tail: add the layers between the deepest map and the classifier's pooling, such as the 1x1 convolution to 1280
            channels of MobileNetV2; pretrained like the rest.
        weights: `scratch`, `timm` (the pretrained weights of the tag in the timm name), `torchvision` (for the paper's
            networks), or the path of a local file, looked up in the lab and then below the data root: safetensors or a
            checkpoint of PyTorch.
        weights_prefix: text before the network's own names in a local file, such as `teacher.backbone.`; found by
            itself unless several sets of weights in the file fit.
        reductions: strides of the feature maps, in increasing order.
    """

    not_in_key: ClassVar[frozenset[str]] = Entry.not_in_key | {"reductions"}

    timm: str | None = None
    paper: Literal["vgg16", "alexnet", "googlenet"] | None = None
    tail: Truth = False
    weights: str = "scratch"
    weights_prefix: str | None = None
    reductions: tuple[Count, ...] = (2, 4, 8, 16, 32)

    @property
    def weights_file(self) -> str | None:
        """The local file of the weights; None if they come from elsewhere."""
        return None if self.weights in ("scratch", "timm", "torchvision") else self.weights

    @property
    def architecture(self) -> str:
        """The name of the network, such as `resnet18.tv_in1k`."""
        return self.timm or f"{self.paper}-paper"

    @model_validator(mode="after")
    def _check_source(self) -> Backbone:
        if (self.timm is None) == (self.paper is None):
            raise ValueError("a backbone is one network: give either 'timm' or 'paper'")
        if self.tail and self.timm is None:
            raise ValueError(f"{self.architecture} has no 'tail'; it ends in the classifier's convolutions already")
        hub = "timm" if self.timm is not None else "torchvision"
        if self.weights in ("timm", "torchvision") and self.weights != hub:
            raise ValueError(f"{self.architecture} has pretrained weights of {hub}, not of {self.weights}")
        if self.weights_file is not None and not self.weights.endswith(WEIGHTS_SUFFIXES):
            raise ValueError(
                f"'weights' is '{self.weights}'; valid: scratch, {hub}, or a file whose name ends in "
                f"{', '.join(WEIGHTS_SUFFIXES)}"
            )
        if self.weights_prefix is not None and self.weights_file is None:
            raise ValueError(f"'weights_prefix' applies to a local weights file, not to weights: {self.weights}")
        return self


class Variant(Config):
    """Configuration of one FCN architecture.

    Attributes:
        backbone: the feature extractor.
        head: the layers from feature maps to class scores.
        upsampler: the layers from class scores to the size of the image.
    """

    backbone: Backbone
    head: AnyHead
    upsampler: AnyUpsampler

    def content(self) -> dict[str, Any]:
        """Return the fields that enter a trial's key, without an upsampler that the head does not use."""
        content = super().content()
        return content if self.head.upsamples else {name: content[name] for name in content if name != "upsampler"}

    def from_scratch(self) -> Variant:
        """Return the variant with a backbone that is initialized randomly."""
        return self.model_copy(update={"backbone": self.backbone.model_copy(update={"weights": "scratch"})})

    @model_validator(mode="after")
    def _check_paper_components(self) -> Variant:
        paper_net, paper_head = self.backbone.paper is not None, self.head.type == "paper"
        if paper_net and not paper_head:
            raise ValueError(
                f"the paper's {self.backbone.paper} pads its input, and only heads of type paper crop for that; "
                "use head: fcn32s-paper"
            )
        if paper_head and not paper_net:
            raise ValueError(
                "a head of type paper crops for the padding of the paper's networks; use backbone: vgg16-paper"
            )
        if paper_head and self.upsampler.type != "transposed":
            raise ValueError("a head of type paper upsamples by transposed convolution; use upsampler: bilinear")
        return self


class NamedVariant(Entry):
    """Configuration of a variant in the registry, by the names of its components.

    Attributes:
        backbone: name of a backbone.
        head: name of a head.
        upsampler: name of an upsampler.
    """

    backbone: str
    head: str
    upsampler: str = DEFAULT_UPSAMPLER


def parse_variant(name: str) -> dict[str, str]:
    """Return the names of the components of `backbone+head` or `backbone+head+upsampler`.

    Args:
        name: the names, joined by `+`.

    Returns:
        The names by kind; the upsampler is `DEFAULT_UPSAMPLER` if it is left out.

    Raises:
        ConfigError: there are not two or three names.

    >>> parse_variant("resnet18+fcn8s")
    {'backbone': 'resnet18', 'head': 'fcn8s', 'upsampler': 'bilinear'}
    """
    parts = name.split("+")
    if len(parts) not in (2, 3) or not all(parts):
        raise ConfigError(
            f"'{name}' is neither backbone+head nor backbone+head+upsampler, such as resnet18+fcn8s or "
            "resnet18+fcn8s+random"
        )
    return dict(zip(VARIANT_COMPONENTS, [*parts, DEFAULT_UPSAMPLER], strict=False))
