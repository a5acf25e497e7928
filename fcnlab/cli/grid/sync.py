"""`fcnlab grid sync`: publish to MLflow what it lacks."""

from __future__ import annotations

from typing import Annotated

import typer

from fcnlab.cli.grid.running import conclude
from fcnlab.cli.options import DataRoot, GridFile, LabOption, TrackingUri
from fcnlab.console import create_console

EXAMPLE = "Example: fcnlab grid sync experiments/quickstart.yaml"


def sync(
    file: GridFile,
    models: Annotated[
        bool, typer.Option("--models", help="Put each finished trial's model on its run, in MLflow's format, too")
    ] = False,
    lab: LabOption = None,
    data_root: DataRoot = None,
    tracking_uri: TrackingUri = None,
) -> None:
    """Publish to MLflow what it lacks of a grid, without running anything, and write the report."""
    from fcnlab.lab import Lab
    from fcnlab.runner.progress.base import PlainReporter
    from fcnlab.runner.scheduler import sync as publish

    place = Lab.find(file, root=lab, data_root=data_root, tracking_uri=tracking_uri)
    grid = place.load_grid(file)
    outcome = publish(grid, place, PlainReporter(create_console()))
    if models and outcome.postponed is None:
        from fcnlab.inference.mlflow_model import log_models

        new = log_models(grid, place, lambda label: typer.echo(f"model: {label}"))
        typer.echo(f'{new} models are new; load one with mlflow.pytorch.load_model("runs:/<run id>/model")')
    conclude(outcome, grid, place)
