"""A model trained on the device: exported files, and predictions through the command line."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.gpu.results import SectionFailed
from benchmarks.gpu.sections.grids import records
from benchmarks.gpu.sections.images import various
from benchmarks.gpu.sections.settings import AcceptSettings, run_cli, trial
from benchmarks.gpu.sections.trials import BASE, run_all
from fcnlab.lab import Lab


def export(settings: AcceptSettings) -> dict[str, Any]:
    """Export a trained model to ONNX and to torch, and predict images on the device and on the CPU.

    `fcnlab export` compares each file with the model. At least 99.9 % of the predicted pixels must be equal.

    Args:
        settings: settings of the run.
    """
    lab, key = _trained(settings)
    exported = {}
    for to, suffix in (("torch", ".pt2"), ("onnx", ".onnx")):
        if to == "onnx" and find_spec("onnxscript") is None:
            exported[to] = "onnxscript is not installed"
            continue
        file = settings.scratch / f"model{suffix}"
        options: tuple[str, ...] = ("--to", to, "--out", str(file), "--overwrite", "--lab", str(lab.root))
        exported[to] = run_cli(settings, "export", key, *options, timeout=70).strip().rpartition(": ")[2]
        file.unlink()
    images = _write_images(settings)
    masks = {}
    for device in dict.fromkeys((settings.device, "cpu")):
        out = settings.scratch / "predictions" / device
        options = ("--out", str(out), "--overwrite", "--lab", str(lab.root))
        run_cli(settings, "predict", key, str(images), *options, timeout=70, variables={"FCNLAB_DEVICE": device})
        masks[device] = [np.asarray(Image.open(file)).ravel() for file in sorted((out / "masks").rglob("*.png"))]
    there, here = (np.concatenate(masks[device]) for device in (settings.device, "cpu"))
    share = float((there == here).mean())
    result = {"exported": exported, "equal_pixels": share, "pixels": len(here), "images": len(masks["cpu"])}
    if share < 0.999:
        raise SectionFailed(f"only {100 * share:.3f} % of the predicted pixels are equal", result)
    files = "; ".join(f"{to}: {text}" for to, text in exported.items())
    return result | {"detail": f"{100 * share:.4f} % of {len(here):,} pixels equal; {files}"}


def _trained(settings: AcceptSettings) -> tuple[Lab, str]:
    """Return the lab and key of a finished trial: one of the section `grid`, or a new one."""
    lab = settings.lab("grid")
    finished = [record.key for record in records(lab) if record.status == "finished"]
    if finished:
        return lab, finished[0]
    lab = settings.lab("export")
    of = trial(lab, {**BASE, "head": "fcn8s", "recipe.epochs": 2 if settings.smoke else 30})
    run_all([(of, lab, settings.device)])
    return lab, of.key


def _write_images(settings: AcceptSettings) -> Path:
    folder = settings.scratch / "photos"
    folder.mkdir(exist_ok=True)
    split = various(settings)
    for index in range(len(split)):
        Image.fromarray(split[index].image).save(folder / f"{index}.png")
    return folder
