"""`fcnlab compare`: two trials or two cells, with the interval of their difference."""

from __future__ import annotations

from typing import Annotated

import typer

from fcnlab.cli.options import DataRoot, LabOption, TrackingUri
from fcnlab.console import create_console

EXAMPLE = "Example: fcnlab compare experiments/quickstart.yaml:fcn32s experiments/quickstart.yaml:fcn8s"

Reference = Annotated[
    str,
    typer.Argument(
        help="A grid's cell as FILE:CELL, one of its trials as FILE:CELL:SEED, or the beginning of a trial's key",
        show_default=False,
    ),
]


def compare(
    a: Reference, b: Reference, lab: LabOption = None, data_root: DataRoot = None, tracking_uri: TrackingUri = None
) -> None:
    """Show by how much B scored more than A: in all with its interval, by class, and on which images most."""
    from fcnlab.lab import Lab
    from fcnlab.report import comparison as comparing
    from fcnlab.report.tables.formats import to_terminal
    from fcnlab.runner.find import file_in

    place = Lab.find(file_in(a, b), root=lab, data_root=data_root, tracking_uri=tracking_uri)
    found = comparing.compare(comparing.find_side(a, place), comparing.find_side(b, place))
    terminal = create_console()
    terminal.print(f"A: {found.a.name}\nB: {found.b.name}\n\n{comparing.sentence(found)}\n")
    tables = {
        "By class, in points of IoU with 95 % intervals of each class alone": comparing.classes_table(found),
        "\nThe images that differ most": comparing.images_table(found),
    }
    for title, table in tables.items():
        terminal.print(to_terminal(table, title, terminal.width))
