"""`fcnlab evaluate`: a finished trial on a split of a dataset, under a protocol."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fcnlab.cli.inference_options import (
    CheckpointOption,
    Flip,
    Scales,
    Stride,
    TrialName,
    Tta,
    Window,
    progress,
    protocol_of,
)  # fmt: skip
from fcnlab.cli.options import DataRoot, LabOption
from fcnlab.console import create_console

if TYPE_CHECKING:
    from fcnlab.trial.evaluate import Evaluation
    from fcnlab.trial.record import SplitMetrics

EXAMPLE = "Example: fcnlab evaluate 429d005e261a --dataset voc2012 --split train --tta"


def evaluate(
    trial: TrialName,
    dataset: Annotated[
        str | None, typer.Option("--dataset", help="A dataset of the registry [default: the trial's own]")
    ] = None,
    split: Annotated[
        str | None, typer.Option("--split", help="A split of it [default: the one on which it is reported]")
    ] = None,
    flip: Flip = False,
    scales: Scales = None,
    tta: Tta = False,
    window: Window = None,
    stride: Stride = None,
    checkpoint: CheckpointOption = "last",
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Keep the figures in a folder of this one [default: the run folder's scores/]"),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON")] = False,
    lab: LabOption = None,
    data_root: DataRoot = None,
) -> None:
    """Score a finished trial on a split of its own dataset or of another one with the same classes.

    What was scored so before is read again. The record of the trial and the report of its grid stay as they are.
    """
    from fcnlab.lab import Lab

    protocol = protocol_of(flip, scales, tta, window, stride)
    place = Lab.find(root=lab, data_root=data_root)

    from fcnlab.training import hardware
    from fcnlab.trial.evaluate import evaluate_trial, evaluation_file, resolve_target
    from fcnlab.trial.find import find_finished_trial

    finished = find_finished_trial(trial, place)
    target = resolve_target(finished, place, dataset, split)
    hardware.retain_freed_memory()
    made = evaluate_trial(finished, place, protocol, checkpoint, progress(finished.label), target=target, out=out)
    file = evaluation_file(finished, protocol, checkpoint, target, out)
    classes = finished.record.classes
    if as_json:
        typer.echo(json.dumps({"classes": classes, "file": str(file), **made.model_dump(mode="json")}, indent=1))
        return
    _show(made, finished.reported_metrics(checkpoint) if target is None else None, classes)
    typer.echo(f"scores: {file}")


def _show(made: Evaluation, recorded: SplitMetrics | None, classes: tuple[str, ...]) -> None:
    """The figures, those of the record beside them where they are of the same split, and the IoU of each class."""
    from rich.table import Column, Table

    scores = made.metrics
    shown = [("recorded", recorded)] if recorded is not None else []
    shown.append((made.name, scores))
    where = f"{made.dataset} {scores.split}" if made.dataset else scores.split
    title = f"{where}, {scores.images} images, epoch {scores.epoch} ({scores.checkpoint}), %"
    table = Table("figure", *(Column(name, justify="right") for name, _ in shown), title=title)
    for name, field in _FIGURES.items():
        table.add_row(name, *(_per_cent(getattr(one, field)) for _, one in shown))
    table.add_section()
    for label, name in enumerate(classes):
        table.add_row(f"IoU {name}", *(_per_cent(one.class_iou[label]) for _, one in shown))
    create_console().print(table)
    typer.echo(f"{made.seconds_per_image:.3f} s an image, {made.precision} on {made.device}")


_FIGURES = {
    "mIoU": "miou",
    "pixel accuracy": "pixel_acc",
    "mean class accuracy": "mean_acc",
    "frequency-weighted IoU": "fw_iou",
    "boundary IoU": "boundary_iou",
}


def _per_cent(value: float | None) -> str:
    return f"{100 * value:.2f}" if value is not None else "–"
