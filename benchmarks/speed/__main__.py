"""The command line `python -m benchmarks.speed`, which times fcnlab and its peers on this machine."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from benchmarks.processes import exit_on_sigterm
from fcnlab.cli.options import DataRoot, LabOption
from fcnlab.console import create_console
from fcnlab.errors import FcnlabError
from fcnlab.settings import DEVICE_VARIABLE, Device

if TYPE_CHECKING:
    from rich.table import Table

    from benchmarks.speed.evaluate import EvaluationBench
    from benchmarks.speed.grid import GridBench
    from benchmarks.speed.metrics import CountingBench

app = typer.Typer(
    name="python -m benchmarks.speed",
    help="Time fcnlab and its peers alternately on this machine.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Repeats = Annotated[int, typer.Option("--repeats", min=1, help="Number of pairs of timings; results are medians")]
DeviceOption = Annotated[
    Device,
    typer.Option("--device", envvar=DEVICE_VARIABLE, help="Device of both sides; auto is CUDA if there is a GPU"),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print all results as JSON")]


def table(title: str, of: str = "image") -> Table:
    """Return an empty table for rows of `benchmarks.speed.pairs.Comparison`.

    Args:
        title: title of the table.
        of: unit to which times refer, such as an image.
    """
    from rich.table import Column, Table

    from benchmarks.speed.pairs import HEADINGS

    first, *others = (heading.replace("image", of) for heading in HEADINGS)
    return Table(first, *(Column(heading, justify="right") for heading in others), title=title)


@app.command(epilog="Example: python -m benchmarks.speed train --data-root ~/data --head fcn8s")
def train(
    backbone: Annotated[str, typer.Option("--backbone", help="resnet18, resnet50 or mobilenetv2_100")] = "resnet18",
    head: Annotated[str, typer.Option("--head", help="fcn32s, fcn16s or fcn8s")] = "fcn32s",
    batch: Annotated[int, typer.Option("--batch", min=1, help="Images per step")] = 8,
    images: Annotated[int, typer.Option("--images", min=1, help="Training images per epoch")] = 16,
    repeats: Repeats = 3,
    peers: Annotated[
        list[str] | None, typer.Option("--peer", help="d2l, torchvision or smp; may be repeated [default: all]")
    ] = None,
    recompute: Annotated[
        bool, typer.Option("--recompute", help="Also train fcnlab with activation checkpointing up to stride 8")
    ] = False,
    threads: Annotated[int | None, typer.Option("--threads", min=1, help="CPU threads [default: torch's]")] = None,
    device: DeviceOption = "auto",
    as_json: AsJson = False,
    lab: LabOption = None,
    data_root: DataRoot = None,
) -> None:
    """Time training: fcnlab in fp32 and bf16, and the peers' loops, with and without fcnlab's allocator setting.

    Each side runs in its own process, two at a time; bf16 is left out if the device lacks it. On CUDA, fcnlab also runs
    in TF32; the peers run in bf16 autocast with processes that load their data, also in channels-last layout.
    """
    import json

    from rich.table import Column, Table

    from benchmarks.speed import train as bench
    from benchmarks.speed.sides import PEERS
    from fcnlab.lab import Lab
    from fcnlab.training.hardware import resolve_device

    found = bench.compare(
        Lab.find(root=lab, data_root=data_root),
        backbone=backbone,
        head=head,
        batch=batch,
        images=images,
        repeats=repeats,
        cpu_threads=threads,
        peers=tuple(peers or PEERS),
        recompute=recompute,
        device=resolve_device(device),
        report=_report,
    )
    if as_json:
        typer.echo(json.dumps(found.to_json(), indent=2))
        return
    title = f"{backbone} {head}, 21 classes, batches of {batch} of 320x480, {found.setting['device']}"
    sides = Table(bench.COLUMNS[0], *(Column(name, justify="right") for name in bench.COLUMNS[1:]), title=title)
    for row in found.rows():
        sides.add_row(*row)
    shown = table("Pair by pair: median (range)")
    for name, comparison in found.comparisons.items():
        shown.add_row(*comparison.row(name))
    terminal = create_console()
    terminal.print(sides)
    terminal.print(shown)
    for line in found.notes():
        terminal.print(line)


@app.command(epilog="Example: python -m benchmarks.speed data --data-root ~/data")
def data(
    repeats: Repeats = 5,
    images: Annotated[int, typer.Option("--images", min=8, help="Number of training images")] = 64,
    device: DeviceOption = "auto",
    as_json: AsJson = False,
    lab: LabOption = None,
    data_root: DataRoot = None,
) -> None:
    """Time training batches: fcnlab's from the decoded split, the peer's from a torchvision Dataset.

    On the CPU both run in one thread. On CUDA fcnlab makes batches on the device, and the peer in separate processes.
    """
    import json

    from benchmarks.speed import data as bench
    from fcnlab.lab import Lab
    from fcnlab.training.hardware import resolve_device

    data_lab = Lab.find(root=lab, data_root=data_root)
    found = bench.compare(data_lab, images=images, repeats=repeats, device=resolve_device(device))
    if as_json:
        typer.echo(json.dumps(found.to_json(), indent=2))
        return
    shown = table(f"{found.images} images of {found.source} to batches of {found.batch}, {found.crop}")
    for name, comparison in found.comparisons.items():
        shown.add_row(*comparison.row(name))
    terminal = create_console()
    terminal.print(shown)
    for line in found.notes():
        terminal.print(line)


@app.command(epilog="Example: python -m benchmarks.speed metrics")
def metrics(
    repeats: Repeats = 5,
    images: Annotated[int, typer.Option("--images", min=8, help="Number of masks")] = 64,
    as_json: AsJson = False,
) -> None:
    """Time confusion counts: fcnlab's, torchmetrics' and two ways of numpy, one thread each."""
    from benchmarks.speed import metrics as bench

    found = bench.compare(images=images, repeats=repeats)
    _show(found, f"{found.images} masks of 320x480, {bench.CLASSES} classes, in batches of {bench.BATCH}", as_json)


@app.command("eval", epilog="Example: python -m benchmarks.speed eval")
def evaluation(
    repeats: Repeats = 5,
    images: Annotated[int, typer.Option("--images", min=4, help="Number of images")] = 16,
    device: DeviceOption = "auto",
    as_json: AsJson = False,
) -> None:
    """Time evaluation of ResNet-18 FCN-32s: fcnlab's, and a loop as in torchvision's reference, one thread each."""
    from benchmarks.speed import evaluate as bench
    from fcnlab.training.hardware import resolve_device

    found = bench.compare(images=images, repeats=repeats, device=resolve_device(device), report=_report)
    _show(found, f"{found.images} images of 320x480, {bench.CLASSES} classes, ResNet-18 FCN-32s", as_json)


@app.command(epilog="Example: python -m benchmarks.speed grid --data-root ~/data")
def grid(
    images: Annotated[int, typer.Option("--images", min=8, help="Training images per trial")] = 16,
    scored: Annotated[int, typer.Option("--scored", min=1, help="Evaluated images per trial")] = 8,
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="Seeds of each of the three heads")] = 4,
    epochs: Annotated[int, typer.Option("--epochs", min=1, help="Epochs per trial")] = 2,
    repeats: Repeats = 1,
    device: DeviceOption = "auto",
    as_json: AsJson = False,
    lab: LabOption = None,
    data_root: DataRoot = None,
) -> None:
    """Time a grid of fcnlab, and a shell loop over runs of a script, from the first command to the last metric."""
    from benchmarks.speed import grid as bench
    from fcnlab.lab import Lab
    from fcnlab.training.hardware import resolve_device

    found = bench.compare(
        Lab.find(root=lab, data_root=data_root),
        images=images,
        scored=scored,
        seeds=seeds,
        epochs=epochs,
        repeats=repeats,
        device=resolve_device(device),
    )
    _show(found, f"{found.trials} trials of ResNet-18, 320x480", as_json, of="trial")


@app.command(epilog="Example: python -m benchmarks.speed page docs/performance > docs/performance.md")
def page(
    folder: Annotated[Path, typer.Argument(help="Folder with the JSON output of the benchmarks and notes.md")],
) -> None:
    """Print the page docs/performance.md."""
    from benchmarks.speed.page import page

    typer.echo(page(folder), nl=False)


def _report(line: str) -> None:
    """Print a line of progress to standard error."""
    typer.echo(line, err=True)


def _show(found: CountingBench | EvaluationBench | GridBench, title: str, as_json: bool, of: str = "image") -> None:
    """Print the results as a table or as JSON."""
    import json

    if as_json:
        typer.echo(json.dumps(found.to_json(), indent=2))
        return
    shown = table(title, of)
    for name, comparison in found.comparisons.items():
        shown.add_row(*comparison.row(name))
    terminal = create_console()
    terminal.print(shown)
    for line in found.notes():
        terminal.print(line)


def main() -> None:
    """Run the command line; errors of the user are one line on standard error, and the exit code is 2."""
    exit_on_sigterm()
    try:
        app(prog_name="python -m benchmarks.speed")
    except FcnlabError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
