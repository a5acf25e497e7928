"""`fcnlab bench`: how fast fcnlab is beside its peers, measured here and now."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from fcnlab.cli.options import DataRoot, LabOption, console

if TYPE_CHECKING:
    from rich.table import Table

    from fcnlab.bench.evaluate import EvaluationBench
    from fcnlab.bench.metrics import CountingBench

app = typer.Typer(help="Time fcnlab beside its peers, in turn, on this machine.", no_args_is_help=True)

Repeats = Annotated[int, typer.Option("--repeats", min=1, help="How many pairs are timed; figures are medians")]
AsJson = Annotated[bool, typer.Option("--json", help="Print all figures as JSON")]


def table(title: str) -> Table:
    """An empty table for rows of `fcnlab.bench.pairs.Comparison`."""
    from rich.table import Column, Table

    from fcnlab.bench.pairs import HEADINGS

    return Table(HEADINGS[0], *(Column(heading, justify="right") for heading in HEADINGS[1:]), title=title)


@app.command(epilog="Example: fcnlab bench data --data-root ~/data")
def data(
    repeats: Repeats = 5,
    images: Annotated[int, typer.Option("--images", min=8, help="How many training images are used")] = 64,
    as_json: AsJson = False,
    lab: LabOption = None,
    data_root: DataRoot = None,
) -> None:
    """Training batches: ours from the decoded split, the peer's a torchvision Dataset. One thread each."""
    import json

    from fcnlab.bench import data as bench
    from fcnlab.places import Lab

    found = bench.compare(Lab.find(lab=lab, data_root=data_root), images=images, repeats=repeats)
    if as_json:
        typer.echo(json.dumps(found.to_json(), indent=2))
        return
    shown = table(f"{found.images} images of {found.source} to batches of {found.batch}, {found.crop}")
    for name, comparison in found.comparisons.items():
        shown.add_row(*comparison.row(name))
    terminal = console()
    terminal.print(shown)
    for line in found.notes():
        terminal.print(line)


@app.command(epilog="Example: fcnlab bench metrics")
def metrics(
    repeats: Repeats = 5,
    images: Annotated[int, typer.Option("--images", min=8, help="How many masks are counted")] = 64,
    as_json: AsJson = False,
) -> None:
    """Confusion counts: ours, torchmetrics' and two ways of numpy. One thread each."""
    from fcnlab.bench import metrics as bench

    found = bench.compare(images=images, repeats=repeats)
    _show(found, f"{found.images} masks of 320x480, {bench.CLASSES} classes, in batches of {bench.BATCH}", as_json)


@app.command("eval", epilog="Example: fcnlab bench eval")
def evaluation(
    repeats: Repeats = 5,
    images: Annotated[int, typer.Option("--images", min=4, help="How many images are scored")] = 16,
    as_json: AsJson = False,
) -> None:
    """Evaluation of ResNet-18 FCN-32s: ours, and a loop as in torchvision's reference. One thread each."""
    from fcnlab.bench import evaluate as bench

    found = bench.compare(images=images, repeats=repeats)
    _show(found, f"{found.images} images of 320x480, {bench.CLASSES} classes, ResNet-18 FCN-32s", as_json)


def _show(found: CountingBench | EvaluationBench, title: str, as_json: bool) -> None:
    """Print figures as a table, or all of them as JSON."""
    import json

    if as_json:
        typer.echo(json.dumps(found.to_json(), indent=2))
        return
    shown = table(title)
    for name, comparison in found.comparisons.items():
        shown.add_row(*comparison.row(name))
    terminal = console()
    terminal.print(shown)
    for line in found.notes():
        terminal.print(line)
