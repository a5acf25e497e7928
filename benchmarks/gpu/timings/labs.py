"""Labs with one grid of small trials, run by `fcnlab grid run`, for the sections that time whole trials."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.gpu.timings import Context

if TYPE_CHECKING:
    from fcnlab.lab import Lab


def write_lab(context: Context, name: str, *, heads: list[str], upsamplers: list[str], seeds: int, epochs: int) -> Path:
    """Write a lab with one grid on the generated images, and return the grid's file.

    Args:
        context: context of the section.
        name: name of the lab's folder.
        heads: names in the registry.
        upsamplers: names in the registry.
        seeds: number of seeds of each cell.
        epochs: number of epochs of each trial; only the last is evaluated.
    """
    from benchmarks.speed import ours

    sizes = context.sizes
    recipe = ours.recipe(sizes.batch, sizes.crop, "bf16" if context.cuda else "fp32", epochs=epochs)
    base = {"backbone": "tiny-scratch" if context.smoke else "resnet18-scratch", "dataset": "voc2012"}
    grid = {
        "product": {"head": heads, "upsampler": upsamplers},
        "seeds": seeds,
        "baseline": {"head": heads[0], "upsampler": upsamplers[0]},
    }
    return ours.write_lab(context.scratch / "labs" / name, recipe, base, grid)


def open_lab(context: Context, file: Path) -> Lab:
    """Open the lab of a grid file, with the generated images.

    Args:
        context: context of the section.
        file: the grid file.
    """
    from fcnlab.lab import Lab

    return Lab.find(file, data_root=context.data)


def decode(context: Context) -> dict[str, float]:
    """Fill the cache of decoded samples, and return the seconds of each split; it is filled only once.

    Args:
        context: context of the section.
    """
    import time

    from fcnlab.data.datasets.voc import Voc2012
    from fcnlab.data.decoded import open_decoded

    seconds = {}
    for split in ("train", "val"):
        began = time.perf_counter()
        open_decoded(Voc2012(context.data / "VOCdevkit" / "VOC2012"), split)
        seconds[split] = time.perf_counter() - began
    return seconds


def run_grid(context: Context, file: Path, per_gpu: int) -> dict[str, Any]:
    """Run a grid by its command and return its wall-clock time and the costs of its trials.

    Args:
        context: context of the section.
        file: the grid file.
        per_gpu: number of trials that share the GPU.

    Raises:
        RuntimeError: not all trials have finished, or not in time.
    """
    arguments = ["-m", "fcnlab", "grid", "run", str(file), "--data-root", str(context.data)]
    arguments += ["--per-gpu", str(per_gpu)] if context.cuda else ["--workers", "1", "--threads", "1"]
    wall, output, code = context.process(*arguments, check=False)
    records = [json.loads(path.read_text(encoding="utf-8")) for path in file.parents[1].glob("runs/*/record.json")]
    lab = open_lab(context, file)
    wanted = len(list(lab.load_grid(file).trials(lab.fingerprints)))
    finished = [record for record in records if record["status"] == "finished"]
    # The exit code may be 1 only because publishing was deferred: MLflow may be missing on a machine with a GPU.
    if len(finished) < wanted:
        errors = [record["failure"]["message"] for record in records if record["failure"]]
        counted = f"{len(finished)} of {wanted} trials have finished"
        raise RuntimeError(f"{counted}; exit code {code}; {errors[:3]}\n{output[-3000:]}")
    costs = [record["cost"] for record in finished]
    return {
        "per_gpu": per_gpu,
        "trials": wanted,
        "exit_code": code,
        "wall_seconds": wall,
        "train_seconds": [cost["train_seconds"] for cost in costs],
        "evaluate_seconds": [cost["evaluate_seconds"] for cost in costs],
        "images_per_s": [cost["images_per_s"] for cost in costs],
        "peak_memory": max(cost["peak_memory"] or 0 for cost in costs),
        "output": output[-3000:],
    }
