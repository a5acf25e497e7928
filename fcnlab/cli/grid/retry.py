"""`fcnlab grid retry`: run the failed trials of a grid again."""

from __future__ import annotations

import typer

from fcnlab.cli.grid.running import Means, run_and_conclude
from fcnlab.cli.options import DataRoot, GridFile, LabOption, Threads, TrackingUri, Workers

EXAMPLE = "Example: fcnlab grid retry experiments/quickstart.yaml"


def retry(
    file: GridFile,
    workers: Workers = None,
    threads: Threads = None,
    lab: LabOption = None,
    data_root: DataRoot = None,
    tracking_uri: TrackingUri = None,
) -> None:
    """Run the failed trials of a grid again, and what else is left of it."""
    from fcnlab.execute.driver import forget_failed
    from fcnlab.places import Lab

    place = Lab.find(file, lab=lab, data_root=data_root, tracking_uri=tracking_uri)
    grid = place.grid(file)
    typer.echo(f"{forget_failed(grid, place)} failed trials will be run again")
    run_and_conclude(grid, place, Means(workers, threads))
