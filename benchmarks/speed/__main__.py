"""The command line `python -m benchmarks.speed`, which times fcnlab and its peers on this machine."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.processes import exit_on_sigterm
from fcnlab.cli.options import DataRoot, LabOption
from fcnlab.errors import FcnlabError
from fcnlab.settings import DEVICE_VARIABLE, Device

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
AsJson = Annotated[bool, typer.Option("--json", help="Print all results as JSON instead of Markdown")]


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
    _show("train", found, as_json)


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
    from benchmarks.speed import data as bench
    from fcnlab.lab import Lab
    from fcnlab.training.hardware import resolve_device

    data_lab = Lab.find(root=lab, data_root=data_root)
    found = bench.compare(data_lab, images=images, repeats=repeats, device=resolve_device(device))
    _show("data", found, as_json)


@app.command(epilog="Example: python -m benchmarks.speed metrics")
def metrics(
    repeats: Repeats = 5,
    images: Annotated[int, typer.Option("--images", min=8, help="Number of masks")] = 64,
    as_json: AsJson = False,
) -> None:
    """Time confusion counts: fcnlab's, torchmetrics' and two ways of numpy, one thread each."""
    from benchmarks.speed import metrics as bench

    _show("metrics", bench.compare(images=images, repeats=repeats), as_json)


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
    _show("eval", found, as_json)


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
    _show("grid", found, as_json)


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


def _show(command: str, found: dict[str, Any], as_json: bool) -> None:
    """Print the results of a command as JSON, or as a section of the page with notes."""
    from benchmarks.speed.page import format_comparisons, format_training

    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    typer.echo(format_training(found) if command == "train" else format_comparisons(command, found))
    for note in found["notes"]:
        typer.echo(note)


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
