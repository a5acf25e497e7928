"""Check that the published weights of backbones are in the cache of this machine, or can be downloaded."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import urlparse

from fcnlab.config.variant import Backbone
from fcnlab.errors import ModelError


def find_missing_weights(backbones: Iterable[Backbone], file: Path) -> list[str]:
    """Return one line for each backbone whose published weights are missing, and the command to get them.

    A server that cannot be reached is asked only once.

    Args:
        backbones: configurations of the backbones.
        file: the grid file, for the command.

    Returns:
        The lines; empty if all weights are cached or can be downloaded.
    """
    wanted = {(each.architecture, each.weights): each for each in backbones if each.weights in ("timm", "torchvision")}
    if not wanted:
        return []
    from fcnlab.models.backbones.pretrained import find_obstacle, find_pretrained  # imports torch

    lines: list[str] = []
    missing = 0
    obstacles: dict[str, str] = {}
    for backbone in wanted.values():
        try:
            found = find_pretrained(backbone)
        except ModelError as error:
            lines.append(f"weights: {error}")
            continue
        if found is None or found.path is not None:
            continue
        server = urlparse(found.url).netloc
        obstacle = obstacles.get(server) or find_obstacle(found)
        if obstacle is not None:
            obstacles[server] = obstacle
            missing += 1
            lines.append(f"the weights of {found.network} are not in {found.folder}, and {server}: {obstacle}")
    if missing:
        lines.append(
            f"fetch missing weights on a machine with a network by `fcnlab weights fetch {shlex.quote(str(file))}`, or "
            "set the weights of the backbones to local files or to scratch"
        )
    return lines
