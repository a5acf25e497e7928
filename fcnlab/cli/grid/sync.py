"""`fcnlab grid sync`: publish missing records to MLflow."""

from __future__ import annotations

from typing import Annotated

import typer

from fcnlab.cli.grid.running import conclude
from fcnlab.cli.options import DataRoot, GridFile, LabOption, TrackerOption, TrackingUri
from fcnlab.cli.output import report_damage, report_missing_inputs
from fcnlab.console import create_console

EXAMPLE = "Example: fcnlab grid sync experiments/quickstart.yaml"


def sync(
    file: GridFile,
    models: Annotated[
        bool, typer.Option("--models", help="Also log the model of each finished trial in MLflow's format")
    ] = False,
    register: Annotated[
        str | None,
        typer.Option("--register", metavar="NAME", help="Register the model of the best cell in MLflow's registry"),
    ] = None,
    lab: LabOption = None,
    data_root: DataRoot = None,
    tracking_uri: TrackingUri = None,
    tracker: TrackerOption = None,
) -> None:
    """Publish the missing records of a grid, and write its report. No trial is run.

    Exit code 1 if a record could not be published, or if files of a trial are damaged; the trial is left out.
    """
    from fcnlab.lab import Lab
    from fcnlab.runner.plan import make_plan
    from fcnlab.runner.progress.plain import PlainReporter
    from fcnlab.runner.run import sync_grid

    lab_ = Lab.find(file, root=lab, data_root=data_root, tracking_uri=tracking_uri, trackers=tracker)
    grid = lab_.load_grid(file)
    plan = make_plan(grid, lab_, recorded_inputs=True)
    report_missing_inputs(plan)
    outcome = sync_grid(grid, lab_, PlainReporter(create_console()))
    if models and "mlflow" not in outcome.deferred:
        from fcnlab.inference.mlflow_model import log_models

        new = log_models(grid, lab_, lambda label: typer.echo(f"model: {label}"))
        typer.echo(f'{new} models logged; load one with mlflow.pytorch.load_model("runs:/<run id>/model")')
    if register is not None and "mlflow" not in outcome.deferred:
        from fcnlab.inference.mlflow_model import register_best_model

        label, version = register_best_model(grid, lab_, register)
        state = f"version {version}" if version is not None else "the newest version is this model"
        typer.echo(f"registered model {register}: {label}: {state}")
    conclude(outcome, grid, lab_)
    report_damage(plan)
