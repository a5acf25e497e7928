"""Files of published weights: where timm and torchvision keep them, and whether they can be downloaded."""

from __future__ import annotations

import urllib.request
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlparse

from fcnlab.config.variant import Backbone as BackboneConfig
from fcnlab.errors import ModelError, first_line
from fcnlab.models.backbones.base import weights_unavailable
from fcnlab.models.backbones.paper import PaperBackbone
from fcnlab.models.backbones.timm import TimmBackbone
from fcnlab.paths import is_file

TIMEOUT = 5.0
"""Seconds to wait for a server."""


@dataclass(frozen=True)
class PretrainedFile:
    """The file of the published weights of a network.

    Attributes:
        network: name of the network with the tag of its weights.
        url: address from which it is downloaded.
        folder: folder of downloaded files.
        path: the downloaded file; None if it is missing.
    """

    network: str
    url: str
    folder: Path
    path: Path | None


def find_pretrained(backbone: BackboneConfig) -> PretrainedFile | None:
    """Find the published weights of a backbone in the caches that timm and torchvision read. Nothing is downloaded.

    Args:
        backbone: configuration of the backbone.

    Returns:
        The file; None if the weights are random or local.

    Raises:
        ModelError: timm has no such model, or the model has no such weights.
    """
    if backbone.weights == "torchvision":
        from torchvision.models import get_model_weights

        assert backbone.paper is not None
        return _find_in_torch_hub(backbone.architecture, get_model_weights(backbone.paper)["IMAGENET1K_V1"].url)
    if backbone.weights == "timm":
        assert backbone.timm is not None
        return _find_of_timm(backbone.timm)
    return None


def _find_of_timm(name: str) -> PretrainedFile:
    from timm.models import get_pretrained_cfg
    from timm.models._builder import _resolve_pretrained_source

    try:
        config = get_pretrained_cfg(name, allow_unregistered=False)
        source, location = _resolve_pretrained_source(config.to_dict() if config is not None else {})
    except (RuntimeError, AssertionError) as error:
        raise ModelError(f"timm has no pretrained weights '{name}': {first_line(error)}") from error
    if source == "hf-hub":
        return _find_in_huggingface_cache(name, location)
    if source == "url":
        return _find_in_torch_hub(name, location)
    raise ModelError(f"timm has no pretrained weights '{name}'; use weights: scratch or a local file")


def _find_in_huggingface_cache(network: str, location: str | tuple[str, str]) -> PretrainedFile:
    """Look for the names that timm tries, in its order."""
    from huggingface_hub import constants, hf_hub_url, try_to_load_from_cache
    from timm.models._hub import HF_WEIGHTS_NAME, _get_safe_alternatives, hf_split

    model, name = (location, HF_WEIGHTS_NAME) if isinstance(location, str) else location
    repository, revision = hf_split(model)
    names = [*_get_safe_alternatives(name), name]
    cached = (try_to_load_from_cache(repository, each, revision=revision) for each in names)
    path = next((Path(found) for found in cached if isinstance(found, str)), None)
    return PretrainedFile(
        network, hf_hub_url(repository, names[0], revision=revision), Path(constants.HF_HUB_CACHE), path
    )


def _find_in_torch_hub(network: str, url: str) -> PretrainedFile:
    import torch

    folder = Path(torch.hub.get_dir()) / "checkpoints"
    path = folder / Path(urlparse(url).path).name
    return PretrainedFile(network, url, folder, path if is_file(path) else None)


def find_obstacle(file: PretrainedFile) -> str | None:
    """Ask the server of a missing file whether it can be downloaded.

    Args:
        file: the file.

    Returns:
        The reason for which it cannot be downloaded; None if it can.
    """
    from huggingface_hub import constants, get_hf_file_metadata

    try:
        if file.folder == Path(constants.HF_HUB_CACHE):
            get_hf_file_metadata(file.url, timeout=TIMEOUT)
        else:
            request = urllib.request.Request(file.url, method="HEAD")
            with urllib.request.urlopen(request, timeout=TIMEOUT):
                pass
    except Exception as error:  # noqa: BLE001 - network libraries have exceptions of their own
        return first_line(error)
    return None


def check_pretrained(backbone: BackboneConfig) -> None:
    """Check within seconds that the published weights of a backbone are on this machine or can be downloaded.

    The download itself would retry for most of a minute before it reports that there is no network.

    Args:
        backbone: configuration of the backbone; nothing is done if its weights are random or local.

    Raises:
        ModelError: the weights are missing, and their server cannot be reached or does not have them.
    """
    file = find_pretrained(backbone)
    if file is not None and file.path is None and (obstacle := find_obstacle(file)) is not None:
        raise weights_unavailable(f"the pretrained weights of '{file.network}'", OSError(f"{file.url}: {obstacle}"))


def fetch_pretrained(backbone: BackboneConfig) -> None:
    """Download the published weights of a backbone and load them once, as a trial does.

    Args:
        backbone: configuration of the backbone; nothing is done if its weights are random or local.

    Raises:
        ModelError: the weights cannot be downloaded, or do not fit.
    """
    check_pretrained(backbone)
    if backbone.weights == "timm":
        assert backbone.timm is not None
        TimmBackbone(backbone.timm, pretrained=True, tail=backbone.tail)
    elif backbone.weights == "torchvision":
        assert backbone.paper is not None
        PaperBackbone(backbone.paper, pretrained=True)
