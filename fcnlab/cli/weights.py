"""The commands `fcnlab weights list` and `fcnlab weights fetch`: published weights of backbones."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fcnlab.cli.options import DataRoot, LabOption
from fcnlab.cli.output import AsJson, Verbose, print_json
from fcnlab.console import create_console, format_table

if TYPE_CHECKING:
    from fcnlab.config.variant import Backbone
    from fcnlab.lab import Lab

app = typer.Typer(help="List and download the pretrained weights of backbones.", no_args_is_help=True)


@app.command("list", epilog="Example: fcnlab weights list experiments/quickstart.yaml")
def list_(
    file: Annotated[
        Path | None,
        typer.Argument(metavar="FILE", help="Grid file", show_default="all backbones of the registry"),
    ] = None,
    verbose: Verbose = False,
    as_json: AsJson = False,
    lab: LabOption = None,
    data_root: DataRoot = None,
) -> None:
    """List the pretrained weights of backbones, and which are missing.

    Exit code 1 if weights of the grid are missing. No server is contacted.
    """
    from fcnlab.lab import Lab

    lab_ = Lab.find(file, root=lab, data_root=data_root)
    names = [str(file)] if file is not None else lab_.registry.names("backbone")
    rows: list[dict[str, Any]] = []
    for name, backbone in _find_backbones(names, lab_):
        if backbone.weights != "scratch":
            weights, path, expected = _locate(backbone, lab_)
            row = {"backbone": name, "weights": weights, "present": path is not None, "file": path}
            rows.append(row | {"expected": None if path is not None else expected})
    complete = all(row["present"] for row in rows)
    if as_json:
        print_json({"weights": rows})
    else:
        terminal = create_console()
        headings = ("backbone", "weights", "state", "file")
        texts = [
            (
                row["backbone"],
                row["weights"],
                "here" if row["present"] else "missing",
                str(row["file"] or row["expected"]),
            )
            for row in rows
        ]
        count = len(headings) if verbose else len(headings) - 1
        terminal.print(format_table(headings[:count], [text[:count] for text in texts], terminal.width))
        if not complete and not verbose:
            terminal.print("--verbose shows the files, and where missing ones are expected")
    if file is not None and not complete:
        raise typer.Exit(1)


@app.command(epilog="Example: fcnlab weights fetch resnet18 timm:convnext_tiny.fb_in1k")
def fetch(
    names: Annotated[
        list[str], typer.Argument(metavar="NAME", help="Grid files, or backbones of the registry", show_default=False)
    ],
    lab: LabOption = None,
    data_root: DataRoot = None,
) -> None:
    """Download the pretrained weights of backbones.

    They are written to the caches of timm and torchvision, and loaded once. For a machine without a network, run it
    elsewhere and copy the folders that it prints.
    """
    from fcnlab.errors import ModelError
    from fcnlab.lab import Lab

    grid = next((Path(name) for name in names if _is_grid(name)), None)
    backbones = _find_backbones(names, Lab.find(grid, root=lab, data_root=data_root))

    from fcnlab.models.backbones.pretrained import fetch_pretrained, find_pretrained

    errors: list[str] = []
    for name, backbone in backbones:
        if backbone.weights not in ("timm", "torchvision"):
            typer.echo(f"{name}: {backbone.weights}, nothing to fetch")
            continue
        try:
            fetch_pretrained(backbone)
            file = find_pretrained(backbone)
        except ModelError as error:
            errors.append(str(error))
        else:
            typer.echo(f"{name}: {file.path if file is not None else ''}")
    if errors:
        raise ModelError("\n".join(errors))


def _is_grid(name: str) -> bool:
    return name.endswith((".yaml", ".yml"))


def _find_backbones(names: list[str], lab: Lab) -> list[tuple[str, Backbone]]:
    """Return the backbones of grid files and of names of the registry, with their names, each once.

    Cells can have backbones of one name with different weights, and be initialized from cells with others.
    """
    from fcnlab.config.grid.grid import Cell

    found: list[tuple[str, Backbone]] = []
    for name in names:
        if not _is_grid(name):
            found.append((name, lab.registry.get("backbone", name)))
            continue
        for each in lab.load_grid(Path(name)).cells:
            cell: Cell | str | None = each
            while isinstance(cell, Cell):
                found.append((cell.names["backbone"], cell.variant.backbone))
                cell = cell.init_from
    return list(dict.fromkeys(found))


def _locate(backbone: Backbone, lab: Lab) -> tuple[str, Path | None, str]:
    """Return the description of the weights, their file or None, and where the file is expected."""
    from fcnlab.errors import ModelError
    from fcnlab.models.backbones.pretrained import find_pretrained

    if backbone.weights_file is not None:
        try:
            return "local file", lab.find_weights_file(backbone), ""
        except ModelError:
            return "local file", None, backbone.weights_file
    file = find_pretrained(backbone)
    assert file is not None, "published weights have a file"
    return f"{backbone.weights} {file.network}", file.path, f"{file.folder}, from {file.url}"
