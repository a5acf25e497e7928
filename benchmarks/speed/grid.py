"""Timings of a grid of fcnlab and of a shell loop over a script, from the command to the metrics."""

from __future__ import annotations

import os
import resource
import shlex
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import torch

from benchmarks.processes import run_guarded
from benchmarks.speed import ours
from benchmarks.speed.images import CLASSES, files
from benchmarks.speed.machine import machine
from benchmarks.speed.pairs import Comparison, Timing
from fcnlab.data.datasets.base import Pair
from fcnlab.errors import RunError
from fcnlab.lab import Lab
from fcnlab.settings import DEVICE_VARIABLE
from fcnlab.trial.run_folder import RunFolder

HEADS = ("fcn32s", "fcn16s", "fcn8s")
CROP, BATCH = (320, 480), 8
WORKERS = 8
"""Processes that load the data of the script on CUDA."""
CPU = torch.device("cpu")


def compare(
    lab: Lab,
    *,
    images: int = 16,
    scored: int = 8,
    seeds: int = 4,
    epochs: int = 2,
    repeats: int = 1,
    device: torch.device = CPU,
) -> dict[str, Any]:
    """Run {fcn32s, fcn16s, fcn8s} x seeds of ResNet-18 from random weights, alternately by fcnlab and by the script.

    Args:
        lab: lab with the data root.
        images: number of training images.
        scored: number of evaluated images.
        seeds: number of seeds of each head.
        epochs: epochs of a trial.
        repeats: number of pairs of timings.
        device: device of both.

    Returns:
        JSON-able results; seconds are those of one trial, and `beside` are those outside training and evaluation,
        except for the first trial of each worker.

    Raises:
        DataError: VOC is not in the data root, or has too few images.
        RunError: one of the two failed.
    """
    trials = len(HEADS) * seeds
    samples = files(lab, images + scored, CROP, every_class=images)
    with samples as (source, pairs), TemporaryDirectory(prefix="fcnlab-bench-") as folder:
        data = _laid_out(Path(folder) / "data", {"train": pairs[:images], "val": pairs[images:]})
        loop = _shell_loop(data, seeds, epochs, device.type)
        taken, beside = [], []
        for number in range(repeats):
            file = _lab(Path(folder) / f"lab{number}", data, seeds, epochs)
            cache = {"FCNLAB_CACHE": str(Path(folder) / f"cache{number}"), DEVICE_VARIABLE: device.type}
            grid = [sys.executable, "-m", "fcnlab", "grid", "run", str(file)]
            taken.append(tuple(_timed(command, trials, env) for command, env in ((grid, cache), (loop, {}))))
            beside += _beside(Lab.find(file))
    comparison = Comparison(tuple(o for o, _ in taken), tuple(p for _, p in taken))
    outside, longest = median(beside), max(beside)
    peer = "float32" if device.type == "cpu" else f"bf16 autocast, {WORKERS} processes that load the data"
    return {
        "source": source,
        "images": images,
        "scored": scored,
        "trials": trials,
        "epochs": epochs,
        "device": device.type,
        "comparisons": {f"{trials} trials": comparison.to_json()},
        "beside": {"median": outside, "max": longest},
        "machine": vars(machine("timm", "mlflow")),
        "notes": [
            f"{source}: {images} training images, {epochs} epochs, {scored} images evaluated; both on {device.type}",
            "times are those of one trial with all overhead",
            "fcnlab: grid run in a new lab with an empty cache, precision auto, including MLflow and the report",
            f"a trial of fcnlab spends {outside:.2f} s outside training and evaluation (at most {longest:.2f} s, "
            "without the first trial of each worker)",
            f"the peer: a shell loop over benchmarks/peers/run_one.py, {peer}, one process per run",
        ],
    }


def _beside(lab: Lab) -> list[float]:
    """Return the seconds of trials outside training and evaluation, from the end of the previous trial of the worker.

    A trial is assigned to the worker whose trial ended longest ago; the first trial of each worker is left out.
    """
    folders = sorted((RunFolder(lab.runs, path.name) for path in lab.runs.iterdir()), key=_began)
    ended = deque(sorted(folder.record.stat().st_mtime for folder in folders))
    found = []
    for folder in folders:
        record = folder.read()
        assert record is not None and record.cost is not None, "the grid has finished"
        if ended[0] <= _began(folder):
            whole = folder.record.stat().st_mtime - ended.popleft()
            found.append(whole - record.cost.train_seconds - record.cost.evaluate_seconds)
    return found


def _began(folder: RunFolder) -> float:
    return folder.trial.stat().st_mtime


def _laid_out(data: Path, splits: dict[str, Sequence[Pair]]) -> Path:
    """Link the files by split: folders of images and masks, and a list of both for the script."""
    for split, pairs in splits.items():
        for role, path_of in _ROLES.items():
            (data / role / split).mkdir(parents=True)
            for pair in pairs:
                path = path_of(pair).resolve()
                (data / role / split / f"{pair.id}{path.suffix}").symlink_to(path)
        listed = [f"{pair.image.resolve()}\t{pair.mask.resolve()}\n" for pair in pairs]
        (data / f"{split}.txt").write_text("".join(listed), encoding="utf-8")
    return data


_ROLES: dict[str, Callable[[Pair], Path]] = {"images": lambda pair: pair.image, "masks": lambda pair: pair.mask}


def _lab(lab: Path, data: Path, seeds: int, epochs: int) -> Path:
    """Write a lab with the images and one grid; return the grid file."""
    dataset = {
        "type": "folder",
        "images": str(data / "images" / "{split}"),
        "masks": str(data / "masks" / "{split}"),
        "classes": [f"class{number}" for number in range(CLASSES)],
        "nominal": {"height": CROP[0], "width": CROP[1]},
    }
    recipe = ours.recipe(BATCH, CROP, "auto", epochs=epochs)
    base = {"backbone": "resnet18-scratch", "upsampler": "d2l-bilinear"}
    grid = {"product": {"head": list(HEADS)}, "seeds": seeds, "baseline": {"head": HEADS[0]}}
    return ours.write_lab(lab, recipe, base, grid, dataset)


def _shell_loop(data: Path, seeds: int, epochs: int, device: str = "cpu") -> list[str]:
    run = f"{shlex.quote(sys.executable)} -m benchmarks.peers.run_one"
    numbers = " ".join(map(str, range(seeds)))
    how = "" if device == "cpu" else f" --device {device} --workers {WORKERS} --bf16"
    return [
        "sh",
        "-ec",
        f"for head in {' '.join(HEADS)}; do for seed in {numbers}; do "
        f"{run} $head $seed {epochs} {shlex.quote(str(data))}{how}; done; done",
    ]


def _timed(command: list[str], trials: int, environment: dict[str, str]) -> Timing:
    """Return the seconds per trial of a command with all processes that it starts.

    Raises:
        RunError: the command failed; the message has the end of its output.
    """
    wall, before = time.perf_counter(), _cpu_of_children()
    done = run_guarded(command, os.environ | environment)
    wall, cpu = time.perf_counter() - wall, _cpu_of_children() - before
    if done.returncode:
        raise RunError(f"{shlex.join(command)} failed:\n{(done.stdout + done.stderr)[-2000:]}")
    return Timing(wall / trials, cpu / trials)


def _cpu_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
