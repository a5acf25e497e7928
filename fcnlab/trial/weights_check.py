"""Check of local weights files before any trial runs."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor

from fcnlab.config.trial import Trial
from fcnlab.lab import Lab
from fcnlab.models.backbones.base import match_backbone
from fcnlab.models.backbones.weights_file import read_tensors
from fcnlab.trial.build import build_backbone


def check_weights(trials: Iterable[Trial], lab: Lab) -> list[str]:
    """Check that the weights files of trials fit their backbones. A file is read once for trials in a row.

    Args:
        trials: the trials; those without a local weights file are skipped.
        lab: the lab with the files.

    Returns:
        One line for each file with other names than the network's: the changes and the unused names.

    Raises:
        ModelError: a file is missing, cannot be read or does not fit; the message begins with its path.
    """
    checked: set[str] = set()
    last: tuple[Path, dict[str, Tensor]] | None = None  # several heads of a backbone follow each other
    lines: list[str] = []
    for trial in trials:
        spec = trial.variant.backbone
        file = lab.find_weights_file(spec)
        identity = repr((spec.content(), trial.variant.head.backbone_stride, trial.dataset.image_channels))
        if file is None or identity in checked:
            continue
        checked.add(identity)
        with torch.device("meta"), torch.random.fork_rng(devices=[]):
            backbone = build_backbone(trial.variant, trial.dataset.image_channels)
        if last is None or last[0] != file:
            last = (file, read_tensors(file))
        match = match_backbone(backbone, last[1], str(file), spec.weights_prefix)
        if match.note:
            lines.append(f"weights {spec.weights}: {match.note}")
    return list(dict.fromkeys(lines))
