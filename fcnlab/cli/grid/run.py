"""`fcnlab grid run`: run what is left of a grid."""

from __future__ import annotations

from fcnlab.cli.grid.running import Means, run_and_conclude
from fcnlab.cli.options import DataRoot, GridFile, LabOption, Threads, TrackingUri, Workers

EXAMPLE = "Example: fcnlab grid run experiments/quickstart.yaml"


def run(
    file: GridFile,
    workers: Workers = None,
    threads: Threads = None,
    lab: LabOption = None,
    data_root: DataRoot = None,
    tracking_uri: TrackingUri = None,
) -> None:
    """Run what is left of a grid, then show its table. Exit code 1 if a trial failed, 130 if it was stopped."""
    from fcnlab.places import Lab

    place = Lab.find(file, lab=lab, data_root=data_root, tracking_uri=tracking_uri)
    run_and_conclude(place.grid(file), place, Means(workers, threads))
