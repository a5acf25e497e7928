"""`fcnlab grid status`: how far a grid is, also while another terminal runs it."""

from __future__ import annotations

from fcnlab.cli.grid.states import states
from fcnlab.cli.options import DataRoot, GridFile, LabOption, console

EXAMPLE = "Example: fcnlab grid status experiments/quickstart.yaml"


def status(file: GridFile, lab: LabOption = None, data_root: DataRoot = None) -> None:
    """Show how far a grid is, also while another terminal runs it."""
    from fcnlab.execute.plan import make_plan
    from fcnlab.places import Lab

    place = Lab.find(file, lab=lab, data_root=data_root)
    made = make_plan(place.grid(file), place)
    terminal = console()
    terminal.print(states(made, epochs=True))
    for planned, record in made.ended:
        if record.failure is not None:
            terminal.print(f"failed: {planned.cell.label}, seed {planned.trial.seed}: {record.failure.message}")
            terminal.print(f"        its log: {planned.folder.log}", soft_wrap=True)
