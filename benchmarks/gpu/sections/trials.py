"""Whole trials on the device: agreement with the CPU, determinism, and resumption after a kill.

Each trial runs in a process that is forked from a clean one, as the workers of `fcnlab grid run` do it. The section's
own process must not be forked: it compares tensors with several threads, and a child of a process that has used OpenMP
waits forever for threads that exist only in its parent.
"""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import signal
import sys
import time
from dataclasses import replace
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from benchmarks.gpu.results import SectionFailed
from benchmarks.gpu.sections.settings import AcceptSettings, trial
from fcnlab.config.trial import Trial
from fcnlab.lab import Lab
from fcnlab.trial.record import Record
from fcnlab.trial.run_folder import RunFolder
from fcnlab.trial.settings import TrialSettings

BASE = {"backbone": "tiny-scratch", "upsampler": "bilinear", "dataset": "shapes-mini", "recipe": "smoke"}

Axes = dict[str, Any]


STACKS = 40.0
"""Seconds after which a trial's process prints the stack of each of its threads, again and again."""


def start(trial: Trial, lab: Lab, device: str, *, label: str = "", **how: Any) -> BaseProcess:
    """Start a trial in a process on a device, as a worker does.

    Args:
        trial: the trial to run.
        lab: contains its run folder.
        device: `cpu` or `cuda`.
        label: name of the trial in the log; by default the lab's folder.
        how: fields of the `TrialSettings`.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["fcnlab.trial.run"])
    plain = replace(lab)  # without what it has cached, which cannot be passed to another process
    child = context.Process(target=_run, args=(trial, plain, device, label or lab.root.name, how))
    child.start()
    return child


def _run(trial: Trial, lab: Lab, device: str, label: str, how: dict[str, Any]) -> None:
    """Run a trial and log when it starts and when it ends."""
    faulthandler.dump_traceback_later(STACKS, repeat=True, file=sys.stderr)
    os.environ["FCNLAB_DEVICE"] = device
    from fcnlab.trial.run import run_trial

    began = time.monotonic()

    def log(event: str) -> None:
        clock = time.strftime("%H:%M:%S")
        print(f"{clock} {label} (process {os.getpid()}): {event} after {time.monotonic() - began:.1f} s", flush=True)

    log("started")
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    record = run_trial(trial, lab, TrialSettings(**how))
    log(record.status if record is not None else "paused")


def finish(children: list[tuple[BaseProcess, Trial, Lab]]) -> list[Record]:
    """Wait for trials and return their records.

    Args:
        children: processes, trials and their labs.

    Raises:
        AssertionError: a process died, or a trial failed.
    """
    records = []
    for child, of, lab in children:
        child.join()
        record = RunFolder(lab.runs, of.key).read()
        assert record is not None, f"no record; the process of the trial ended with exit code {child.exitcode}"
        failure = record.failure
        assert failure is None, f"the trial failed: {failure.message}\n{failure.traceback}"
        records.append(record)
    return records


def run_all(trials: list[tuple[Trial, Lab, str]]) -> list[Record]:
    """Run trials at the same time, each on its device, and return their records.

    Args:
        trials: trials, their labs and their devices.
    """
    return finish([(start(of, lab, device, checkpoint_every=0), of, lab) for of, lab, device in trials])


def agreement(settings: AcceptSettings) -> dict[str, Any]:
    """Train on CPU and CUDA from one seed; predict with the CUDA-trained weights on both.

    In fp32 at least 99.99 % of the pixels must have the same prediction, in bf16 99 %. The first epoch's loss must
    differ by less than 5 %: initial weights, batches and augmentation are the same.

    Args:
        settings: settings of the run.
    """
    epochs = 2 if settings.smoke else 12
    axes: Axes = {**BASE, "head": "fcn8s", "recipe.epochs": epochs, "recipe.scale": [0.75, 1.5], "recipe.flip": 0.5}
    axes |= {"recipe.optimizer": {"name": "adamw", "lr": 0.003}, "recipe.schedule": {"name": "poly"}}
    if not settings.smoke:
        axes |= {"dataset": "shapes", "recipe.crop": {"height": 96, "width": 128}, "recipe.batch_size": 16}
    runs = []
    for precision in ("fp32", "bf16"):
        for device in dict.fromkeys((settings.device, "cpu")):
            lab = settings.lab(f"agreement-{precision}-{device}")
            of = trial(lab, axes | {"recipe.precision": precision})
            runs.append((of, lab, device, precision))
    records = run_all([run[:3] for run in runs])
    by_run = {(precision, device): record for (_, _, device, precision), record in zip(runs, records, strict=True)}
    result: dict[str, Any] = {"share_of_equal_pixels": {}, "first_loss_difference": {}, "miou": {}}
    wrong = []
    for of, lab, device, precision in runs:
        record = by_run[precision, device]
        score = record.find_metrics("test", "last")
        result["miou"][f"{precision} {device}"] = score.miou if score else None
        if device != settings.device:
            continue
        shares, pixels = _equal_pixels(of, lab, settings)
        result["share_of_equal_pixels"][precision] = shares
        result["pixels"] = pixels
        least = 0.9999 if precision == "fp32" else 0.99
        wrong += [f"{precision}, {pair}: {share:.6f} of the pixels" for pair, share in shares.items() if share < least]
        losses = [by_run[precision, name].epochs[0].loss for name in (settings.device, "cpu")]
        difference = abs(losses[0] - losses[1]) / losses[1]
        result["first_loss_difference"][precision] = difference
        if difference > 0.05:
            wrong.append(f"{precision}: the first epoch's loss differs by {100 * difference:.2f} %")
    environment = records[0].environment
    assert environment is not None and environment.kind == settings.device, f"the record has {environment}"
    if wrong:
        raise SectionFailed("; ".join(wrong), result)
    return result | {"detail": describe_shares(result["share_of_equal_pixels"], pixels)}


def describe_shares(shares: dict[str, dict[str, float]], pixels: int) -> str:
    """Return the shares of equal pixels as text.

    Args:
        shares: by precision and compared pair.
        pixels: number of compared pixels.
    """
    each = [
        f"{precision} {100 * share:.4f} % ({pair})" for precision, of in shares.items() for pair, share in of.items()
    ]
    return f"equal of {pixels:,} pixels: {', '.join(each)}"


def _equal_pixels(of: Trial, lab: Lab, settings: AcceptSettings) -> tuple[dict[str, float], int]:
    """Return the share of pixels with the same class on CPU and device, by pair, and the number of pixels."""
    from PIL import Image

    from fcnlab import load
    from fcnlab.data.decoded import open_decoded
    from fcnlab.inference.model import TrainedModel

    model = load(of.key, lab=lab)
    split = open_decoded(lab.open_dataset(of.dataset), "test")
    images = [Image.fromarray(split[index].image.permute(1, 2, 0).numpy()) for index in range(min(60, len(split)))]
    precision = of.recipe.precision
    ways = {"device": (settings.device, precision), "cpu": ("cpu", precision), "cpu fp32": ("cpu", "fp32")}
    predicted = {}
    for way, (device, at) in ways.items():
        description = model.description.model_copy(update={"precision": at})
        there = TrainedModel(model.network, description, torch.device(device))
        predicted[way] = np.concatenate([there.predict(image).ravel() for image in images])
    model.network.to("cpu")
    pairs = {f"device and {way}": way for way in ("cpu", "cpu fp32")}
    shares = {pair: float((predicted["device"] == predicted[way]).mean()) for pair, way in pairs.items()}
    return shares, len(predicted["cpu"])


def determinism(settings: AcceptSettings) -> dict[str, Any]:
    """Train twice: with `deterministic: true` weights and counts must be equal bit for bit.

    Args:
        settings: settings of the run.
    """
    variants: dict[str, Axes] = {
        "fcn8s, fused": {"head": "fcn8s"},
        "fcn32s, lovasz, bf16, ema": {
            "head": "fcn32s",
            "recipe.loss": {"lovasz": 0.5},
            "recipe.precision": "bf16",
            "recipe.ema": 0.9,
            "recipe.optimizer": {"name": "adamw", "lr": 0.003},
        },
        "dilated8-aux, dropout": {"head": "dilated8-aux", "recipe.jitter": {"contrast": 0.3}},
        "resnet10t, dice, rotation": {
            "backbone": "resnet10t-scratch",
            "head": "fcn16s",
            "recipe.loss": {"dice": 0.5},
            "recipe.rotate": 10.0,
            "recipe.scale": [0.5, 2.0],
        },
    }
    if settings.smoke:
        variants = dict(list(variants.items())[2:3])
    pairs = [(name, True) for name in variants] + [(next(iter(variants)), False)]
    errors: dict[str, str] = {}
    equal: dict[str, dict[str, bool]] = {}
    seconds: dict[str, float] = {}
    result: dict[str, Any] = {"pairs": len(pairs), "equal": equal, "errors": errors, "seconds": seconds}
    for name, deterministic in pairs:
        label = f"{name}, {'deterministic' if deterministic else 'as usual'}"
        axes = {**BASE, **variants[name], "recipe.deterministic": deterministic, "recipe.epochs": 3}
        began = time.monotonic()
        children = []
        for run in range(2):
            lab = settings.lab(f"determinism-{run}")
            of = trial(lab, axes)
            child = start(of, lab, settings.device, label=f"{label}, run {run + 1}", checkpoint_every=0)
            children.append((child, of, lab))
        try:
            finish(children)
            first, second = (RunFolder(lab.runs, of.key).path for _, of, lab in children)
            equal[label] = {"weights": equal_weights(first, second), "counts": equal_counts(first, second)}
        except AssertionError as error:
            errors[label] = str(error)
        seconds[label] = time.monotonic() - began
        settings.keep("determinism", result)
    wrong = [name for name, same in equal.items() if "deterministic" in name and not all(same.values())]
    result["wrong"] = wrong
    if errors or wrong:
        first_error = next(iter(errors.items()), None)
        raise SectionFailed(f"not equal: {wrong}; errors: {first_error}", result)
    usual = "equal" if all(equal[f"{pairs[-1][0]}, as usual"].values()) else "not equal"
    return result | {"detail": f"{len(variants)} deterministic pairs equal bit for bit; one as usual: {usual}"}


def compiled(settings: AcceptSettings) -> dict[str, Any]:
    """Train with `compile: true` and without: the losses of the first epoch must differ by less than 0.1 %.

    Args:
        settings: settings of the run.
    """
    axes: Axes = {**BASE, "head": "fcn8s", "recipe.epochs": 2}
    ways = ("compiled", "plain")
    runs = []
    for way in ways:
        lab = settings.lab(way)
        runs.append((trial(lab, axes | {"recipe.compile": way == "compiled"}), lab, settings.device))
    losses = {way: record.epochs[0].loss for way, record in zip(ways, run_all(runs), strict=True)}
    difference = abs(losses["compiled"] - losses["plain"]) / losses["plain"]
    result = {"losses": losses, "difference": difference}
    if difference > 1e-3:
        raise SectionFailed(f"the losses of the first epoch are {losses}", result)
    return result | {"detail": f"the losses of the first epoch differ by {100 * difference:.4f} %"}


def equal_weights(one: Path, other: Path) -> bool:
    """Return whether the last weights in two run folders are equal bit for bit.

    Args:
        one: a run folder.
        other: another run folder.
    """
    first, second = (load_file(folder / "last.safetensors") for folder in (one, other))
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def equal_counts(one: Path, other: Path) -> bool:
    """Return whether the counts in two run folders are equal.

    Args:
        one: a run folder.
        other: another run folder.
    """
    first, second = (np.load(folder / "counts.npz") for folder in (one, other))
    with first, second:
        return set(first.files) == set(second.files) and all(
            np.array_equal(first[name], second[name]) for name in first.files
        )


def resume(settings: AcceptSettings) -> dict[str, Any]:
    """Kill a trial with dropout after its second epoch; resumed, it must equal an undisturbed one bit for bit.

    Args:
        settings: settings of the run.
    """
    epochs = 5 if settings.smoke else 24
    axes = {**BASE, "head": "dilated8", "recipe.deterministic": True, "recipe.epochs": epochs, "recipe.ema": 0.9}
    axes |= {"recipe.optimizer": {"name": "adamw", "lr": 0.003}, "dataset": "shapes-mini"}
    calm, killed = settings.lab("resume-calm"), settings.lab("resume-killed")
    undisturbed = start(trial(calm, axes), calm, settings.device, label="undisturbed", checkpoint_every=0)
    of = trial(killed, axes)
    folder = RunFolder(killed.runs, of.key)
    child = start(of, killed, settings.device, label="to be killed", checkpoint_every=0)
    done = kill_after(child, folder, 2, 60.0 * settings.patience)
    assert folder.checkpoint.exists(), "the killed trial has left no checkpoint"
    saved = len(torch.load(folder.checkpoint, map_location="cpu", weights_only=True)["epochs"])
    settings.keep("resume", {"killed_after_epoch": done, "epochs_in_checkpoint": saved})
    resumed = start(of, killed, settings.device, label="resumed", checkpoint_every=0)
    finish([(undisturbed, trial(calm, axes), calm), (resumed, of, killed)])
    paths = (RunFolder(calm.runs, of.key).path, folder.path)
    result = {
        "killed_after_epoch": done,
        "epochs_in_checkpoint": saved,
        "weights": equal_weights(*paths),
        "counts": equal_counts(*paths),
        "losses": _losses(paths[0]) == _losses(paths[1]),
    }
    if not 1 <= saved < epochs or not (result["weights"] and result["counts"] and result["losses"]):
        raise SectionFailed(f"the resumed trial is another: {result}", result)
    return result | {"detail": f"killed after epoch {done}, resumed after {saved}: weights, counts and losses equal"}


def _losses(folder: Path) -> list[float]:
    record = RunFolder(folder.parent, folder.name).read()
    assert record is not None, f"{folder} has no valid record"
    return [epoch.loss for epoch in record.epochs]


def kill_after(child: BaseProcess, folder: RunFolder, epoch: int, limit: float) -> int:
    """Kill a trial's process after its checkpoint of an epoch; return the number of finished epochs.

    Args:
        child: the process.
        folder: run folder of the trial.
        epoch: number of epochs in the checkpoint.
        limit: time limit in seconds.
    """
    deadline = time.monotonic() + limit
    while (done := _checkpointed(folder)) < epoch:
        assert child.is_alive(), f"the trial ended after {done} epochs: {_why(folder)}"
        assert time.monotonic() < deadline, f"only {done} epochs in {limit:.0f} s"
        time.sleep(0.002)
    assert child.pid is not None
    os.kill(child.pid, signal.SIGKILL)
    child.join()
    assert folder.read() is None, "the trial finished before it was killed"
    return done


def _checkpointed(folder: RunFolder) -> int:
    """Return the number of finished epochs if there is a checkpoint, which may be one epoch older."""
    return len(folder.read_progress()) if folder.checkpoint.exists() else 0


def _why(folder: RunFolder) -> str:
    record = folder.read()
    return record.failure.traceback if record is not None and record.failure is not None else "no record"
