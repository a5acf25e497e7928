"""`fcnlab grid schema`: the JSON Schema of grid files."""

from __future__ import annotations

import json

import typer

from fcnlab.cli.options import LabOption

EXAMPLE = "Example: fcnlab grid schema"


def schema(lab: LabOption = None) -> None:
    """Print the JSON Schema of grid files.

    It includes the component names of the lab's registry. Editors complete and check grid files with it.
    """
    from fcnlab.config.grid.schema import grid_schema
    from fcnlab.lab import Lab

    typer.echo(json.dumps(grid_schema(Lab.find(root=lab).registry), indent=1, ensure_ascii=False))
