"""`fcnlab grid schema`: the JSON Schema of grid files."""

from __future__ import annotations

from fcnlab.cli.options import LabOption
from fcnlab.cli.output import print_json

EXAMPLE = "Example: fcnlab grid schema"


def schema(lab: LabOption = None) -> None:
    """Print the JSON Schema of grid files.

    It includes the component names of the lab's registry. Editors complete and check grid files with it.
    """
    from fcnlab.config.grid.schema import grid_schema
    from fcnlab.lab import Lab

    print_json(grid_schema(Lab.find(root=lab).registry), ascii_only=False)
