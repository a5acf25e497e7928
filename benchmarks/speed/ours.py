"""The side of fcnlab in the comparison of training: built and trained as a trial is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import torch
import yaml

from benchmarks.speed.images import CLASSES
from fcnlab.config.head import AnyHead
from fcnlab.config.recipe import Recipe
from fcnlab.config.registry import builtin
from fcnlab.config.upsampler import AnyUpsampler
from fcnlab.config.variant import Backbone, Variant
from fcnlab.data.datasets.base import FileDataset, Pair
from fcnlab.models import FCN
from fcnlab.training import hardware
from fcnlab.training.fit import Execution, fit
from fcnlab.trial.build import build_model, build_training

ENDLESS = 10**6
"""Number of epochs of a training that ends when its process is stopped."""


def network(backbone: str, head: str) -> FCN:
    """Build a variant from random weights with upsamplers as torch users write them: dense, bilinear, with bias.

    Args:
        backbone: timm's name.
        head: name of a head in the registry.
    """
    registry = builtin()
    variant = Variant(
        backbone=Backbone(timm=backbone),
        head=cast(AnyHead, registry.get("head", head)),
        upsampler=cast(AnyUpsampler, registry.get("upsampler", "d2l-bilinear")),
    )
    return build_model(variant, CLASSES, seed=0).to(memory_format=torch.channels_last)


def recipe(
    batch: int,
    crop: tuple[int, int],
    precision: str = "fp32",
    *,
    batch_norm: str = "train",
    recompute: bool = False,
    compiled: bool = False,
    epochs: int = ENDLESS,
) -> Recipe:
    """Return the recipe of all sides: crops, flips and SGD with momentum.

    Args:
        batch: images per step.
        crop: height and width in pixels.
        precision: precision of the forward pass, as in a recipe file.
        batch_norm: batch norm of the backbone, `train` or `frozen`.
        recompute: whether the backbone up to stride 8 is computed again in the backward pass.
        compiled: whether the network is compiled on CUDA.
        epochs: over which the learning rate is scheduled; it is constant.
    """
    return Recipe.model_validate(
        {
            "epochs": epochs,
            "batch_size": batch,
            "crop": {"height": crop[0], "width": crop[1]},
            "flip": 0.5,
            "optimizer": {"name": "sgd", "lr": 0.01, "momentum": 0.9, "weight_decay": 1e-4},
            "precision": precision,
            "batch_norm": batch_norm,
            "activation_checkpointing": "stride8" if recompute else "none",
            "compile": compiled,
        }
    )


def write_lab(lab: Path, recipe: Recipe, base: dict[str, str], grid: dict[str, Any], dataset: Any = None) -> Path:
    """Write a lab with one grid, whose trials are evaluated after their last epoch, and return the grid file.

    Args:
        lab: the new folder.
        recipe: recipe of all trials.
        base: backbone, and dataset if it is a built-in one.
        grid: the other keys of the grid file.
        dataset: entry of the dataset, if it is not a built-in one.
    """
    timed = recipe.model_dump(mode="json", exclude_unset=True) | {"validate_every": recipe.epochs}
    named = base | {"recipe": "timed"} | ({"dataset": "timed"} if dataset else {})
    files = {
        "registry/recipes.yaml": {"timed": timed},
        "registry/datasets.yaml": {"timed": dataset} if dataset else {},
        "experiments/timed.yaml": {"question": "How long does a grid take?", "base": named, **grid},
    }
    for name, content in files.items():
        (lab / name).parent.mkdir(parents=True, exist_ok=True)
        (lab / name).write_text(yaml.safe_dump(content), encoding="utf-8")
    return lab / "experiments" / "timed.yaml"


class Files(FileDataset):
    """Given files as a dataset with one split, `train`. The masks hold class numbers, 255 for ignored pixels."""

    classes = tuple(f"class{number}" for number in range(CLASSES))
    expected_layout = "given files"
    split_names = ("train",)

    def __init__(self, pairs: Sequence[Pair]) -> None:
        super().__init__(pairs[0].image.parent)
        self._files = list(pairs)

    def list_pairs(self, split: str) -> list[Pair]:  # noqa: ARG002 - there is one
        return self._files


def train(
    pairs: Sequence[Pair],
    wanted: Recipe,
    backbone: str,
    head: str,
    device: torch.device,
    begin: Callable[[], None],
    after_epoch: Callable[[int], None],
) -> None:
    """Train until `after_epoch` raises an exception.

    The decoded samples come from the cache, as in a trial; it is filled first where it is empty.

    Args:
        pairs: files of the training split, with unique ids.
        wanted: the recipe.
        backbone: timm's name.
        head: name of a head in the registry.
        device: where to train.
        begin: called before the first epoch, when all is built.
        after_epoch: called with the number of images of each epoch.

    Raises:
        ModelError: the recipe recomputes, and the backbone cannot be computed again in parts.
    """
    if device.type == "cuda":  # on the CPU the filling of new tensors that repeatable results ask for is left out
        hardware.configure_determinism(device)
    precision = hardware.resolve_precision(wanted.precision, device)
    model = hardware.move_to_device(network(backbone, head), device)
    training = build_training(wanted, model, Files(pairs), split="train", seed=0)
    images = training.batches.steps * wanted.batch_size
    begin()
    fit(
        model,
        training,
        Execution(
            hardware.create_autocast(device, precision),
            hardware.create_grad_scaler(device, precision),
            compiled=wanted.compile and device.type == "cuda",
        ),
        epochs=wanted.epochs,
        on_epoch_end=lambda _: after_epoch(images),
    )
