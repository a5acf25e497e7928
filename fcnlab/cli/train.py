"""`fcnlab train`: one trial, with the same records as in a grid."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fcnlab.cli.options import DataRoot, DeviceOption, DevicesPerTrial, LabOption, Threads, TrackingUri
from fcnlab.console import create_console

if TYPE_CHECKING:
    from fcnlab.runner.plan import PlannedTrial
    from fcnlab.trial.record import Record

EXAMPLE = "Example: fcnlab train fcn8s-tiny --dataset shapes --recipe quick --set recipe.epochs=2 --seed 0"


def train(
    variant: Annotated[
        str, typer.Argument(help="A variant of the registry, or backbone+head+upsampler", show_default=False)
    ],
    dataset: Annotated[str, typer.Option("--dataset", help="A dataset of the registry")],
    recipe: Annotated[str, typer.Option("--recipe", help="A recipe of the registry")],
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="AXIS=VALUE", help="A field as a grid would set it: recipe.lr=0.01; repeatable"),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="What every random number follows from")] = 0,
    init_from: Annotated[
        str | None, typer.Option("--init-from", help="Key of a finished trial whose last weights are loaded")
    ] = None,
    threads: Threads = None,
    device: DeviceOption = "auto",
    devices_per_trial: DevicesPerTrial = 1,
    lab: LabOption = None,
    data_root: DataRoot = None,
    tracking_uri: TrackingUri = None,
    workdir: Annotated[
        Path | None, typer.Option("--workdir", help="Run it in this folder, with records and a book of its own")
    ] = None,
) -> None:
    """Train and score one variant. A grid that asks for this very trial later finds it done."""
    from fcnlab.config.grid.grid import Grid, GridFile, resolve
    from fcnlab.lab import Lab
    from fcnlab.runner import scheduler
    from fcnlab.runner.executors.config import ExecutorConfig
    from fcnlab.runner.isolated_lab import isolated_lab
    from fcnlab.runner.plan import make_plan
    from fcnlab.runner.progress.base import PlainReporter
    from fcnlab.runner.progress.rich import RichReporter

    place = Lab.find(root=lab, data_root=data_root, tracking_uri=tracking_uri)
    said = _parts(variant) | {"dataset": dataset, "recipe": recipe, "init_from": init_from} | _settings(settings or [])
    cell = resolve(said, place.registry, "fcnlab train")
    if workdir is not None:
        place = isolated_lab(place, cell, workdir)
    file = GridFile(question="Single trials", base=said, seeds=[seed], baseline={})
    grid = Grid("train", Path("train"), file, (cell,), cell, (seed,))
    executor_config = ExecutorConfig(workers=1, threads=threads, devices=devices_per_trial, device=device)
    executor_config.check(grid.cells, place)
    terminal = create_console()
    with RichReporter(terminal) if terminal.is_terminal else PlainReporter(terminal) as reporter:
        outcome = scheduler.run(grid, place, lambda: executor_config.create_executor(place, grid.recipes), reporter)
    planned = make_plan(grid, place).trials[0]
    record = planned.record
    assert record is not None, "run has ended every trial"
    _show(planned, record)
    if outcome.postponed is not None:
        typer.echo(f"not published: {outcome.postponed}", err=True)
    if record.failure is not None:
        typer.echo(f"failed: {record.failure.message}; its log: {planned.folder.log}", err=True)
        raise typer.Exit(1)


def _parts(variant: str) -> dict[str, Any]:
    """What names a variant, or its parts."""
    from fcnlab.errors import ConfigError

    if "+" not in variant:
        return {"variant": variant}
    parts = variant.split("+")
    if len(parts) != 3:
        raise ConfigError(f"'{variant}' is not backbone+head+upsampler, such as resnet18+fcn8s+bilinear")
    return dict(zip(("backbone", "head", "upsampler"), parts, strict=True))


def _settings(settings: Sequence[str]) -> dict[str, Any]:
    """What `--set` says, by axis; values are YAML, as in a grid's file."""
    from fcnlab.config.yaml_file import parse
    from fcnlab.errors import ConfigError

    said: dict[str, Any] = {}
    for setting in settings:
        axis, mark, value = setting.partition("=")
        if not mark or not axis:
            raise ConfigError(f"--set: axis=value, such as recipe.epochs=5; not '{setting}'")
        if axis in said:
            raise ConfigError(f"--set {axis}: stands twice; keep one of them")
        said[axis] = parse(f"value: {value}", f"--set {axis}")["value"]
    return said


def _show(planned: PlannedTrial, record: Record) -> None:
    for score in record.metrics:
        figures = (score.miou, score.pixel_acc, score.mean_acc, score.fw_iou)
        shown = "  ".join(f"{100 * v:5.1f}" if v is not None else "    –" for v in figures)
        typer.echo(
            f"{score.split:>4} {score.checkpoint} (epoch {score.epoch}): mIoU, pixel, mean acc., f.w. IoU %  {shown}"
        )
    typer.echo(f"record: {planned.folder.record}")
