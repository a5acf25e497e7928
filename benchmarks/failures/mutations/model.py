"""A small model with random weights in a file, as `fcnlab export` writes it."""

from __future__ import annotations

from pathlib import Path

from fcnlab.api import build_model
from fcnlab.config.grid.grid import resolve
from fcnlab.inference.description import ModelDescription
from fcnlab.inference.load import write_safetensors
from fcnlab.inference.model import TrainedModel
from fcnlab.lab import Lab


def write_model(path: Path) -> Path:
    """Write the model.

    Args:
        path: path of the file.

    Returns:
        The path.
    """
    lab = Lab.find(root=path.parent)
    overrides = {"backbone": "tiny-scratch", "head": "fcn32s", "dataset": "shapes-mini", "recipe": "smoke"}
    cell = resolve(overrides, lab.registry, "mutations")
    network = build_model("tiny-scratch+fcn32s", 4, pretrained=False, lab=lab).eval()
    description = ModelDescription(
        key="0" * 64,
        names=dict(cell.names),
        checkpoint="last",
        epoch=1,
        classes=("ground", "road", "thing", "tree"),
        palette=((0, 0, 0), (128, 64, 128), (1, 2, 3), (9, 9, 9)),
        mean=network.backbone.mean,
        std=network.backbone.std,
        score_scale=1.0,
        precision="fp32",
        variant=cell.variant,
        recipe=cell.recipe.model_dump(mode="json"),
    )
    write_safetensors(TrainedModel(network, description), path)
    return path
