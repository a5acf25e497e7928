"""`fcnlab train`: one trial, with the same records as in a grid."""

from __future__ import annotations

from typing import Annotated

import typer

from fcnlab.cli.options import DataRoot, LabOption, Threads, TrackingUri, console

EXAMPLE = "Example: fcnlab train fcn8s-tiny --dataset shapes --recipe quick --seed 0"


def train(
    variant: Annotated[str, typer.Argument(help="A variant of the registry", show_default=False)],
    dataset: Annotated[str, typer.Option("--dataset", help="A dataset of the registry")],
    recipe: Annotated[str, typer.Option("--recipe", help="A recipe of the registry")],
    seed: Annotated[int, typer.Option("--seed", min=0, help="What every random number follows from")] = 0,
    start: Annotated[str | None, typer.Option("--start", help="Key of a finished trial to start from")] = None,
    threads: Threads = None,
    lab: LabOption = None,
    data_root: DataRoot = None,
    tracking_uri: TrackingUri = None,
) -> None:
    """Train and score one variant. A grid that asks for this very trial later finds it done."""
    from pathlib import Path

    from fcnlab.execute import driver
    from fcnlab.execute.means import Means
    from fcnlab.execute.plan import make_plan
    from fcnlab.execute.watch import LiveWatcher, PlainWatcher
    from fcnlab.places import Lab
    from fcnlab.spec.grid import Grid, GridFile, resolve

    place = Lab.find(lab=lab, data_root=data_root, tracking_uri=tracking_uri)
    said = {"variant": variant, "dataset": dataset, "recipe": recipe, "start": start}
    cell = resolve(said, {}, place.catalog, "fcnlab train")
    file = GridFile(question="Single trials", base=said, seeds=[seed], baseline={})  # type: ignore[arg-type]
    grid = Grid("train", Path("train"), file, (cell,), cell, (seed,))
    terminal = console()
    with LiveWatcher(terminal) if terminal.is_terminal else PlainWatcher(terminal) as watcher:
        means = Means(workers=1, threads=threads)
        outcome = driver.run(grid, place, lambda: means.hire(place, grid.recipes), watcher)
    planned = make_plan(grid, place).trials[0]
    assert planned.record is not None, "run has ended every trial"
    for score in planned.record.scores:
        figures = (score.miou, score.pixel_acc, score.mean_acc, score.fw_iou)
        shown = "  ".join(f"{100 * v:5.1f}" if v is not None else "    –" for v in figures)
        typer.echo(
            f"{score.split:>4} {score.choice} (epoch {score.epoch}): mIoU, pixel, mean acc., f.w. IoU %  {shown}"
        )
    typer.echo(f"record: {planned.folder.record}")
    if outcome.postponed is not None:
        typer.echo(f"not published: {outcome.postponed}", err=True)
    if planned.record.failure is not None:
        typer.echo(f"failed: {planned.record.failure.message}; its log: {planned.folder.log}", err=True)
        raise typer.Exit(1)
