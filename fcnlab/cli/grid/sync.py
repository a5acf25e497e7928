"""`fcnlab grid sync`: publish to MLflow what it lacks."""

from __future__ import annotations

from fcnlab.cli.grid.running import conclude
from fcnlab.cli.options import DataRoot, GridFile, LabOption, TrackingUri, console

EXAMPLE = "Example: fcnlab grid sync experiments/quickstart.yaml"


def sync(file: GridFile, lab: LabOption = None, data_root: DataRoot = None, tracking_uri: TrackingUri = None) -> None:
    """Publish to MLflow what it lacks of a grid, without running anything, and write the report."""
    from fcnlab.execute.driver import sync as publish
    from fcnlab.execute.watch import PlainWatcher
    from fcnlab.places import Lab

    place = Lab.find(file, lab=lab, data_root=data_root, tracking_uri=tracking_uri)
    grid = place.grid(file)
    conclude(publish(grid, place, PlainWatcher(console())), grid, place)
