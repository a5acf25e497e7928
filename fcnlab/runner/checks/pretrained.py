"""Check that the published weights of backbones are in the cache of this machine, or can be downloaded."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from urllib.parse import urlparse

from fcnlab.config.variant import Backbone
from fcnlab.errors import ModelError
from fcnlab.runner.commands import format_path
from fcnlab.runner.executors.call_process import Call


def find_missing_weights(backbones: Iterable[Backbone], file: Path, call: Call) -> list[str]:
    """Return one line for each backbone whose published weights are missing, and the command to get them.

    A server that cannot be reached is asked only once.

    Args:
        backbones: configurations of the backbones.
        file: the grid file, for the command.
        call: calls the functions that import torch.

    Returns:
        The lines; empty if all weights are cached or can be downloaded.
    """
    distinct = {
        (backbone.architecture, backbone.weights): backbone
        for backbone in backbones
        if backbone.weights in ("timm", "torchvision")
    }
    return call(_describe_missing, list(distinct.values()), file) if distinct else []


def _describe_missing(backbones: Sequence[Backbone], file: Path) -> list[str]:
    from fcnlab.models.backbones.pretrained import find_obstacle, find_pretrained  # imports torch

    errors: list[str] = []
    has_missing = False
    obstacles: dict[str, str] = {}
    for backbone in backbones:
        try:
            weights = find_pretrained(backbone)
        except ModelError as error:
            errors.append(f"weights: {error}")
            continue
        if weights is None or weights.path is not None:
            continue
        server = urlparse(weights.url).netloc
        obstacle = obstacles.get(server) or find_obstacle(weights)
        if obstacle is not None:
            obstacles[server] = obstacle
            has_missing = True
            errors.append(f"the weights of {weights.network} are not in {weights.folder}, and {server}: {obstacle}")
    if has_missing:
        errors.append(
            f"fetch missing weights on a machine with a network by `fcnlab weights fetch {format_path(file)}`, or "
            "set the weights of the backbones to local files or to scratch"
        )
    return errors
