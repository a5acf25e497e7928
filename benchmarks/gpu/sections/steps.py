"""Training steps in which the host never waits for the device."""

from __future__ import annotations

import os
import traceback
import warnings
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu.results import SectionFailed
from benchmarks.gpu.sections.settings import AcceptSettings, cell
from fcnlab.data.batches import TrainingBatches
from fcnlab.data.datasets.shapes import Shapes
from fcnlab.training import hardware
from fcnlab.training.fit import Epoch, Execution, fit
from fcnlab.trial.build import build_model, build_training

WARM_UP = 6
"""Steps before those that are watched: libraries initialize themselves, and a CUDA graph is captured."""
STEPS = 10
GRAPHS = "FCNLAB_CUDA_GRAPHS"

RECIPES: dict[str, dict[str, Any]] = {
    "d2l": {"recipe": "d2l", "recipe.crop": {"height": 160, "width": 240}},
    "voc": {"recipe": "voc", "recipe.crop": {"height": 160, "width": 160}},
    "voc, fp32, clipped, ohem, jitter": {
        "recipe": "voc",
        "recipe.crop": {"height": 160, "width": 160},
        "recipe.precision": "fp32",
        "recipe.grad_clip_norm": 1.0,
        "recipe.freeze": "none",
        "recipe.loss": {"ohem": {"threshold": 0.7}, "class_weights": "median_frequency"},
        "recipe.grad_accum_steps": 2,
        "recipe.jitter": {"brightness": 0.2, "contrast": 0.2, "saturation": 0.2, "hue": 0.05},
        "recipe.rotate": 5.0,
    },
}


class Watched:
    """Batches of one epoch; synchronization is an error while the last ones are made and used."""

    def __init__(self, batches: TrainingBatches, watched: bool) -> None:
        self.steps, self._batches, self._watched = WARM_UP + STEPS, batches, watched

    def epoch(self, _epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the batches of several epochs, until there are enough.

        Args:
            _epoch: ignored.
        """
        for step, batch in zip(range(self.steps + 1), self._endless(), strict=False):
            if step == self.steps:  # after the last step; at the end of an epoch the loss is read
                break
            yield batch
            if step == WARM_UP - 1 and self._watched:
                torch.cuda.set_sync_debug_mode("error")
        if self._watched:
            torch.cuda.set_sync_debug_mode("default")

    def _endless(self) -> Iterator[tuple[Tensor, Tensor]]:
        epoch = 0
        while True:
            yield from self._batches.epoch(epoch)
            epoch += 1


def steps(settings: AcceptSettings) -> dict[str, Any]:
    """Train steps of recipes through `build_training` and `fit`; a synchronization in one of them is an error.

    Each recipe is run operator by operator, and as `fit` runs it on this device, with CUDA graphs if they can be
    captured. Both must have the same loss.

    Args:
        settings: settings of the run.
    """
    found: dict[str, dict[str, Any]] = {}
    wrong: list[str] = []
    for name, axes in RECIPES.items():
        found[name] = {}
        for way, graphs in {"eager": "0", "graphs": "1"}.items():
            if way == "graphs" and not settings.cuda:
                continue
            os.environ[GRAPHS] = graphs
            try:
                found[name][way] = _run(axes, settings)
            except Exception as error:  # noqa: BLE001 - the other recipes run too
                wrong.append(f"{name}, {way}: {_where(error)}")
                found[name][way] = {"error": traceback.format_exc()}
            finally:
                del os.environ[GRAPHS]
                if settings.cuda:
                    torch.cuda.set_sync_debug_mode("default")
        losses = [way["loss"] for way in found[name].values() if "loss" in way]
        if len(losses) == 2 and abs(losses[0] - losses[1]) > 2e-3 * abs(losses[0]):
            wrong.append(f"{name}: the loss is {losses[1]} with CUDA graphs and {losses[0]} without")
        wrong += [f"{name}: {text}" for way in found[name].values() for text in way.get("warnings", [])]
    if wrong:
        raise SectionFailed("; ".join(wrong), {"recipes": found, "wrong": wrong})
    synchronization = "no synchronization" if settings.cuda else "not watched on the CPU"
    return {"recipes": found, "detail": f"{synchronization}; ms per step with warm-up: {describe_times(found)}"}


def describe_times(found: dict[str, dict[str, dict[str, Any]]]) -> str:
    """Return the milliseconds of the steps of each recipe as text.

    Args:
        found: results by recipe and way.
    """
    texts = {
        name: ", ".join(f"{1000 * run['seconds']:.1f} {way}" for way, run in ways.items())
        for name, ways in found.items()
    }
    return "; ".join(f"{name}: {text}" for name, text in texts.items())


def _run(axes: dict[str, Any], settings: AcceptSettings) -> dict[str, Any]:
    """Train the steps of one recipe and return the mean loss and the seconds of a step."""
    device = torch.device(settings.device, 0) if settings.cuda else torch.device("cpu")
    axes = {"backbone": "resnet18-scratch", "head": "fcn32s", "upsampler": "bilinear", "dataset": "shapes", **axes}
    if settings.smoke:
        axes |= {"backbone": "tiny-scratch", "recipe.batch_size": 4, "recipe.crop": {"height": 64, "width": 64}}
    recipe, variant = cell(axes).recipe, cell(axes).variant
    scenes = Shapes(train=recipe.batch_size * 2, val=1, test=1, height=120, width=160, seed=0)
    precision = hardware.resolve_precision(recipe.precision, device)
    hardware.configure_determinism(device)
    model = hardware.move_to_device(build_model(variant, len(scenes.classes), seed=0), device)
    training = build_training(recipe, model, scenes, split="train", seed=0)
    epochs: list[Epoch] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit(
            model,
            replace(
                training,
                batches=Watched(training.batches, settings.cuda),  # type: ignore[arg-type]
                schedule=lambda step: 0.1,  # noqa: ARG005 - small steps, so that rounding does not decide
            ),
            Execution(
                hardware.create_autocast(device, precision),
                hardware.create_grad_scaler(device, precision),
                grad_accum_steps=recipe.grad_accum_steps,
            ),
            epochs=1,
            on_epoch_end=epochs.append,
        )
    about_graphs = [str(warning.message) for warning in caught if "CUDA graph" in str(warning.message)]
    (epoch,) = epochs
    return {
        "loss": epoch.loss,
        "seconds": epoch.seconds / (WARM_UP + STEPS),
        "precision": precision,
        "warnings": about_graphs,
    }


def _where(error: BaseException) -> str:
    """Return an error and the last line of this project in its traceback."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "fcnlab" in frame.filename]
    location = (
        f" at {frames[-1].filename.rpartition('fcnlab/')[2]}:{frames[-1].lineno}: {frames[-1].line}" if frames else ""
    )
    return f"{type(error).__name__}: {str(error).splitlines()[0]}{location}"
