"""`fcnlab evaluate`: evaluate a finished trial, or all finished trials of a grid, under a protocol."""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fcnlab.cli.inference_options import (
    CheckpointOption,
    Flip,
    InferenceThreads,
    Scales,
    Stride,
    Tta,
    Window,
    create_progress,
    parse_protocol,
    set_threads,
)
from fcnlab.cli.options import DataRoot, LabOption
from fcnlab.cli.output import AsJson, print_json, report_damage
from fcnlab.cli.references import TRIAL_FORMS, find_named_trial, reference_argument
from fcnlab.console import create_console, format_count, format_table

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from fcnlab.config.grid.grid import Grid
    from fcnlab.constants import CheckpointChoice
    from fcnlab.lab import Lab
    from fcnlab.metrics.summary import ImageMetrics
    from fcnlab.training.protocol import Protocol
    from fcnlab.trial.evaluation.evaluate import Evaluation, EvaluationTarget
    from fcnlab.trial.find import FinishedTrial
    from fcnlab.trial.record import SplitMetrics

EXAMPLE = "Example: fcnlab evaluate experiments/quickstart.yaml:best --split val --tta"


def evaluate(
    name: Annotated[
        str,
        reference_argument("TRIAL|FILE", f"A trial: {TRIAL_FORMS}; or a grid file for all of its trials"),
    ],
    dataset: Annotated[
        str | None,
        typer.Option(
            "--dataset",
            metavar="NAME",
            help="Evaluate on this dataset of the registry",
            show_default="that of the trial",
        ),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option("--split", metavar="NAME", help="Evaluate on this split", show_default="the reported split"),
    ] = None,
    flip: Flip = False,
    scales: Scales = None,
    tta: Tta = False,
    window: Window = None,
    stride: Stride = None,
    checkpoint: CheckpointOption = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="DIR",
            help="Folder for the metrics of a trial",
            show_default="evaluations/ in its run folder",
        ),
    ] = None,
    confusion: Annotated[
        bool,
        typer.Option("--confusion", help="Show which classes of a trial are confused, and write the confusion matrix"),
    ] = False,
    as_json: AsJson = False,
    threads: InferenceThreads = None,
    lab: LabOption = None,
    data_root: DataRoot = None,
) -> None:
    """Evaluate a finished trial, or all finished trials of a grid.

    A trial is evaluated on a split of its dataset, or of another dataset with the same classes. For a grid, a table
    with the metrics under the protocol beside the plain ones is written to results/<grid>/evaluation-<protocol>.md and
    .csv. Existing evaluations are reused. Records and reports do not change. Exit code 1 if files of a trial of the
    grid are damaged; the trial is left out.
    """
    from fcnlab.errors import ConfigError
    from fcnlab.lab import Lab
    from fcnlab.runner.find import find_grid_file

    protocol = parse_protocol(flip, scales, tta, window, stride)
    if Path(name).suffix not in (".yaml", ".yml"):
        lab_ = Lab.find(find_grid_file(name), root=lab, data_root=data_root)
        reference = find_named_trial(name, lab_)
        used = checkpoint or reference.checkpoint
        finished = reference.read_finished()
        _evaluate_trial(
            finished, lab_, protocol, used, dataset, split, out, threads, confusion=confusion, as_json=as_json
        )
        return
    given = {"--dataset": dataset, "--split": split, "--out": out, "--confusion": confusion or None}
    refused = [option for option, value in given.items() if value is not None]
    if refused:
        raise ConfigError(f"{', '.join(refused)}: only for a trial, not for a grid; name a trial, such as FILE:CELL")
    lab_ = Lab.find(Path(name), root=lab, data_root=data_root)
    _evaluate_grid(Path(name), lab_, protocol, checkpoint, threads, as_json)


def _evaluate_trial(
    finished: FinishedTrial,
    lab: Lab,
    protocol: Protocol,
    checkpoint: CheckpointChoice,
    dataset: str | None,
    split: str | None,
    out: Path | None,
    threads: int | None,
    *,
    confusion: bool,
    as_json: bool,
) -> None:
    from fcnlab.training import hardware
    from fcnlab.trial.evaluation.evaluate import (
        evaluate_trial,
        evaluation_file,
        find_other_precision,
        read_confusion,
        read_image_metrics,
        resolve_target,
    )

    set_threads(threads)
    target = resolve_target(finished, lab, dataset, split)
    hardware.retain_freed_memory()
    evaluation = evaluate_trial(
        finished, lab, protocol, checkpoint, create_progress(finished.label), target=target, out=out
    )
    file = evaluation_file(finished, protocol, checkpoint, target, out)
    classes = finished.record.classes
    if evaluation.training_images:
        seen, every = evaluation.training_images, evaluation.metrics.images
        typer.echo(f"warning: {seen} of the {every} images were trained on, so the metrics are too high", err=True)
    per_image = read_image_metrics(file.with_suffix(".npz"))
    matrix = read_confusion(file.with_suffix(".npz")) if confusion else None
    if target is not None:
        _print_value_scaling(lab, target)
    if as_json:
        assert per_image is not None, "an evaluation has a file of counts"
        added = {"per_image": asdict(per_image)} | ({} if matrix is None else {"confusion": matrix.tolist()})
        print_json({"classes": classes, "file": file, **evaluation.model_dump(mode="json"), **added})
        return
    recorded = finished.reported_metrics(checkpoint) if target is None else None
    columns = {evaluation.name: (evaluation.metrics, per_image)}
    if recorded is not None:
        counts = read_image_metrics(finished.folder.counts, f"{recorded.split}_{checkpoint}")
        columns = {"recorded": (recorded, counts), **columns}
    _print_evaluation(evaluation, columns, classes)
    if precision := find_other_precision(finished.record, evaluation):
        typer.echo(f"the trial was trained in {precision}, the precision of its recorded metrics")
    typer.echo(f"metrics: {file}")
    if matrix is not None:
        _print_confusion(matrix, classes, file.with_name(f"{file.stem}-confusion.csv"))


def _print_confusion(matrix: NDArray[np.int64], classes: tuple[str, ...], file: Path) -> None:
    """Print as what the pixels of each class are predicted, and write the whole matrix."""
    from fcnlab.atomic_file import write_atomically
    from fcnlab.report.confusion import HEADINGS, confusion_frame, describe_confusions
    from fcnlab.report.tables.csv_text import to_csv_text
    from fcnlab.storage_errors import convert_write_errors

    rows = describe_confusions(matrix, classes)
    terminal = create_console()
    typer.echo()
    terminal.print(format_table(HEADINGS, rows, terminal.width, numbers=(1, 2), title="Predictions of each class"))
    with convert_write_errors(file):
        write_atomically(file, lambda to: to.write(to_csv_text(confusion_frame(matrix, classes)).encode()))
    typer.echo(f"confusion matrix: {file}")


def _print_value_scaling(lab: Lab, target: EvaluationTarget) -> None:
    """Print one line per kind of image of more than 8 bits of a split that is not the reported one."""
    from fcnlab.data.datasets.base import FileSplit
    from fcnlab.data.datasets.image_file import WIDE_MODES, open_header, open_image
    from fcnlab.data.inspection.value_scaling import ValueScaling

    dataset = lab.open_dataset(target.config)
    split = dataset.split(target.split)
    if not isinstance(split, FileSplit):
        return
    scaling = ValueScaling(dataset.image_format, f"set value_range: [0, {{high}}] of dataset {target.dataset}")
    for pair in split.pairs:
        with open_header(pair.image) as image:
            scaling.add(open_image(pair.image) if image.mode in WIDE_MODES else image)
    for line in scaling.lines():
        typer.echo(line, err=True)


def _evaluate_grid(
    file: Path,
    lab: Lab,
    protocol: Protocol,
    checkpoint: CheckpointChoice | None,
    threads: int | None,
    as_json: bool,
) -> None:
    from fcnlab.errors import RunError
    from fcnlab.runner.commands import format_grid_command
    from fcnlab.runner.plan import make_plan

    grid = lab.load_grid(file)
    checkpoint = checkpoint or grid.file.checkpoint
    plan = make_plan(grid, lab)
    finished_trials = [planned for planned in plan.trials if planned.state == "finished"]
    if not finished_trials:
        command = format_grid_command("grid run", grid, lab)
        raise RunError(f"{file}: none of its trials has finished; run it first: {command}")

    from fcnlab.report.evaluation import (
        EvaluatedTrial,
        evaluation_footnote,
        evaluation_frame,
        evaluation_table,
        write_evaluation,
    )
    from fcnlab.report.tables.formats import to_terminal
    from fcnlab.training import hardware
    from fcnlab.trial.evaluation.evaluate import evaluate_trial
    from fcnlab.trial.find import FinishedTrial

    set_threads(threads)
    hardware.retain_freed_memory()
    pairs = []
    for planned in finished_trials:
        assert planned.record is not None, "a finished trial has a record"
        pairs.append((planned, FinishedTrial(planned.trial, planned.record, planned.folder)))
    _check_weights([finished for _, finished in pairs], checkpoint, grid, lab)
    evaluated = []
    for planned, finished in pairs:
        on_progress = create_progress(planned.description)
        evaluation = evaluate_trial(finished, lab, protocol, checkpoint, on_progress)
        evaluated.append(EvaluatedTrial(planned, finished.reported_metrics(checkpoint), evaluation))
    slug = protocol.slug + ("-best" if checkpoint == "best" else "")
    frame = evaluation_frame(grid, evaluated)
    page = write_evaluation(grid, evaluated, frame, lab, slug)
    if as_json:
        facts = {"grid": grid.name, "question": grid.file.question, "protocol": str(protocol), "checkpoint": checkpoint}
        print_json(facts | {"file": page, "cells": frame.to_dict(orient="records")})
    else:
        terminal = create_console()
        title = f"{grid.file.question} ({protocol})"
        terminal.print(to_terminal(evaluation_table(grid, frame), title, terminal.width))
        terminal.print(evaluation_footnote(evaluated), style="dim")
        typer.echo(f"metrics: {page}")
    report_damage(plan)


def _check_weights(trials: list[FinishedTrial], checkpoint: CheckpointChoice, grid: Grid, lab: Lab) -> None:
    """Raise RunError if weights are missing, with the folders of all such trials, before the first evaluation."""
    from fcnlab.errors import RunError
    from fcnlab.paths import relative_to_cwd
    from fcnlab.runner.commands import format_grid_command

    missing = [one for one in trials if not one.has_weights(checkpoint)]
    if missing:
        command = format_grid_command("grid run", grid, lab)
        raise RunError(
            f"{grid.path}: the weights of {len(missing)} of {format_count(len(trials), 'finished trial')} are missing; "
            f"to train them again, remove these folders, then: {command}\n"
            + "\n".join(f"{relative_to_cwd(one.folder.path)} ({one.label})" for one in missing)
        )


def _print_evaluation(
    evaluation: Evaluation, columns: dict[str, tuple[SplitMetrics, ImageMetrics | None]], classes: tuple[str, ...]
) -> None:
    """Print the metrics and the IoU of each class, with one column per heading."""
    metrics = evaluation.metrics
    split = f"{evaluation.dataset} {metrics.split}" if evaluation.dataset else metrics.split
    title = f"{split}, {format_count(metrics.images, 'image')}, epoch {metrics.epoch} ({metrics.checkpoint}), %"
    rows = [
        (label, *(_format_percent(getattr(column, field)) for column, _ in columns.values()))
        for label, field in _METRICS.items()
    ]
    rows += [
        (label, *(_format_percent(getattr(images, field, None)) for _, images in columns.values()))
        for label, field in _IMAGE_METRICS.items()
    ]
    rows += [
        (f"IoU {name}", *(_format_percent(column.class_iou[index]) for column, _ in columns.values()))
        for index, name in enumerate(classes)
    ]
    headings = ("metric", *columns)
    terminal = create_console()
    numbers, starts = range(1, len(headings)), [len(_METRICS) + len(_IMAGE_METRICS)]
    terminal.print(format_table(headings, rows, terminal.width, numbers=numbers, group_starts=starts, title=title))
    typer.echo(f"{evaluation.seconds_per_image:.3f} s per image, {evaluation.precision} on {evaluation.device}")


_METRICS = {
    "mIoU": "miou",
    "pixel accuracy": "pixel_acc",
    "mean class accuracy": "mean_acc",
    "frequency-weighted IoU": "fw_iou",
    "Dice (F1)": "dice",
    "boundary IoU": "boundary_iou",
}


_IMAGE_METRICS = {"mIoU per image": "miou", "Dice per image": "dice"}


def _format_percent(value: float | None) -> str:
    return f"{100 * value:.2f}" if value is not None and not math.isnan(value) else "–"
