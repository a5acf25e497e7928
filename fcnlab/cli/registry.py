"""The commands `fcnlab registry list` and `fcnlab registry show`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fcnlab.cli.options import LabOption
from fcnlab.cli.output import AsJson, Verbose, fit_last_column, print_json
from fcnlab.console import create_console, format_table

if TYPE_CHECKING:
    from fcnlab.config.registry import Registry

app = typer.Typer(help="List and show the entries of the registry.", no_args_is_help=True)


@app.command("list", epilog="Example: fcnlab registry list heads")
def list_(
    kind: Annotated[
        str | None,
        typer.Argument(
            metavar="KIND",
            help="backbones, heads, upsamplers, variants, datasets or recipes",
            show_default="all kinds",
        ),
    ] = None,
    search: Annotated[
        str, typer.Option("--search", metavar="TEXT", help="List entries whose name or description contains this text")
    ] = "",
    timm: Annotated[
        bool, typer.Option("--timm", help="Also list all models of timm, by their names in grid files")
    ] = False,
    verbose: Verbose = False,
    as_json: AsJson = False,
    lab: LabOption = None,
) -> None:
    """List the entries of the registry, one per line.

    `fcnlab registry show` prints all fields of an entry. Descriptions are shortened to one line; --verbose shows them
    in full.
    """
    registry = _registry(lab)
    kinds = [_singular(kind)] if kind else list(registry.entries)
    entries = [_describe(registry, each, name) for each in kinds for name in registry.names(each)]
    if timm:
        entries += [{"kind": "backbone", "name": name, "description": "a model of timm"} for name in _timm_names()]
    entries = [entry for entry in entries if search.lower() in " ".join(entry.values()).lower()]
    if as_json:
        print_json({"entries": entries})
        return
    terminal = create_console()
    headings = ("kind", "name", "description")
    rows = [
        (entry["kind"], entry["name"], ": ".join(filter(None, (entry.get("components"), entry["description"]))))
        for entry in entries
    ]
    shown = [headings, *rows] if verbose else fit_last_column(headings, rows, terminal.width)
    terminal.print(format_table(shown[0], shown[1:], terminal.width))


def _describe(registry: Registry, kind: str, name: str) -> dict[str, str]:
    """Return an entry as JSON values; a variant has its components too."""
    from fcnlab.config.variant import NamedVariant

    entry = registry.get(kind, name)
    values = {"kind": kind, "name": name, "description": entry.description}
    if isinstance(entry, NamedVariant):
        values["components"] = f"{entry.backbone} + {entry.head} + {entry.upsampler}"
    return values


def _timm_names() -> list[str]:
    """Return the backbone names of all models of timm: without weights, and with each set of pretrained weights."""
    import timm

    return [f"scratch:{name}" for name in timm.list_models()] + [
        f"timm:{name}" for name in timm.list_models(pretrained=True) if "." in name
    ]


@app.command(epilog="Example: fcnlab registry show recipe d2l")
def show(
    kind: Annotated[
        str, typer.Argument(metavar="KIND", help="Kind of the entry, such as head or recipe", show_default=False)
    ],
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the entry", show_default=False)],
    as_json: AsJson = False,
    lab: LabOption = None,
) -> None:
    """Show an entry as YAML, with all defaults."""
    from fcnlab.config.yaml_file import dump

    entry = _registry(lab).get(_singular(kind), name)
    if as_json:
        print_json({"kind": _singular(kind), "name": name, "entry": entry.model_dump(mode="json")})
        return
    typer.echo(dump({name: entry.model_dump(mode="json")}, width=100), nl=False)


def _singular(kind: str) -> str:
    return kind.removesuffix("s")


def _registry(lab: Path | None) -> Registry:
    from fcnlab.lab import Lab

    return Lab.find(root=lab).registry
