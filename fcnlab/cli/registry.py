"""The commands `fcnlab registry list` and `fcnlab registry show`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fcnlab.cli.options import LabOption
from fcnlab.console import create_console, create_table

if TYPE_CHECKING:
    from fcnlab.config.registry import Registry

app = typer.Typer(help="List and show the entries of the registry.", no_args_is_help=True)


@app.command("list", epilog="Example: fcnlab registry list heads")
def list_(
    kind: Annotated[
        str | None, typer.Argument(help="backbones, heads, upsamplers, variants, datasets or recipes")
    ] = None,
    search: Annotated[str, typer.Option("--search", help="Only entries whose name or description contains this")] = "",
    timm: Annotated[
        bool, typer.Option("--timm", help="Also list the models of timm, by the names that grid files accept")
    ] = False,
    lab: LabOption = None,
) -> None:
    """List the entries of the registry with the first sentence of each description; `registry show` has the rest."""
    from fcnlab.config.base import Entry
    from fcnlab.config.variant import NamedVariant

    registry = _registry(lab)
    table = create_table("kind", "name", "description")

    def components(entry: Entry) -> str:
        return f"{entry.backbone} + {entry.head} + {entry.upsampler}" if isinstance(entry, NamedVariant) else ""

    for each in [_singular(kind)] if kind else list(registry.entries):
        for name in registry.names(each):
            entry = registry.get(each, name)
            if search.lower() in f"{name} {components(entry)} {entry.description}".lower():
                summary = entry.description.partition(". ")[0]
                table.add_row(each, name, ". ".join(filter(None, (components(entry), summary))))
    if timm:
        for name in _timm_names():
            if search.lower() in name.lower():
                table.add_row("backbone", name, "a model of timm")
    create_console().print(table)


def _timm_names() -> list[str]:
    """Return the backbone names of all models of timm: without weights, and with each set of pretrained weights."""
    import timm

    return [f"scratch:{name}" for name in timm.list_models()] + [
        f"timm:{name}" for name in timm.list_models(pretrained=True) if "." in name
    ]


@app.command(epilog="Example: fcnlab registry show recipe d2l")
def show(
    kind: Annotated[str, typer.Argument(help="Kind of the entry, such as head or recipe", show_default=False)],
    name: Annotated[str, typer.Argument(help="Name of the entry", show_default=False)],
    lab: LabOption = None,
) -> None:
    """Show an entry as YAML, with all defaults."""
    from fcnlab.config.yaml_file import dump

    entry = _registry(lab).get(_singular(kind), name)
    typer.echo(dump({name: entry.model_dump(mode="json")}, width=100), nl=False)


def _singular(kind: str) -> str:
    return kind.removesuffix("s")


def _registry(lab: Path | None) -> Registry:
    from fcnlab.lab import Lab

    return Lab.find(root=lab).registry
