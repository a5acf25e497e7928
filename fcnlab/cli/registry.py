"""`fcnlab registry list|show`: what exists."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fcnlab.cli.options import LabOption
from fcnlab.console import create_console

if TYPE_CHECKING:
    from fcnlab.config.registry import Registry

app = typer.Typer(help="Look through the catalogue.", no_args_is_help=True)


@app.command("list", epilog="Example: fcnlab registry list heads")
def list_(
    kind: Annotated[
        str | None, typer.Argument(help="backbones, heads, upsamplers, variants, datasets or recipes")
    ] = None,
    search: Annotated[str, typer.Option("--search", help="Only names and descriptions with this text")] = "",
    timm: Annotated[
        bool, typer.Option("--timm", help="Timm's own models too, by the names that grids may say")
    ] = False,
    lab: LabOption = None,
) -> None:
    """List what the catalogue has, of one kind or of all."""
    from rich.table import Table

    from fcnlab.config.base import Entry
    from fcnlab.config.variant import NamedVariant

    registry = _catalog(lab)
    table = Table("kind", "name", "what it is")

    def about(entry: Entry) -> str:
        parts = f"{entry.backbone} + {entry.head} + {entry.upsampler}" if isinstance(entry, NamedVariant) else ""
        return ". ".join(filter(None, (parts, entry.description)))

    for each in [_singular(kind)] if kind else list(registry.entries):
        for name in registry.names(each):
            text = about(registry.get(each, name))
            if search.lower() in f"{name} {text}".lower():
                table.add_row(each, name, text)
    if timm:
        for name in _timm_names():
            if search.lower() in name.lower():
                table.add_row("backbone", name, "timm's, by name alone")
    create_console().print(table)


def _timm_names() -> list[str]:
    """Every model of timm as a backbone's name: from scratch, and with each of its pretrained weights."""
    import timm

    return [f"scratch:{name}" for name in timm.list_models()] + [
        f"timm:{name}" for name in timm.list_models(pretrained=True) if "." in name
    ]


@app.command(epilog="Example: fcnlab registry show recipe d2l")
def show(
    kind: Annotated[str, typer.Argument(help="Such as head or recipe", show_default=False)],
    name: Annotated[str, typer.Argument(help="The entry's name", show_default=False)],
    lab: LabOption = None,
) -> None:
    """Show an entry in full, defaults included, as the YAML that would say it."""
    import yaml

    entry = _catalog(lab).get(_singular(kind), name)
    typer.echo(yaml.safe_dump({name: entry.model_dump(mode="json")}, sort_keys=False, width=100), nl=False)


def _singular(kind: str) -> str:
    return kind.removesuffix("s")


def _catalog(lab: Path | None) -> Registry:
    from fcnlab.lab import Lab

    return Lab.find(root=lab).registry
