"""The MLflow run of a grid: the parent of the runs of its trials, with the report."""

from __future__ import annotations

import getpass
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from fcnlab.tracking.base import TrackedGrid
from fcnlab.tracking.fields import NOTE, clean_run_name, clean_tag
from fcnlab.tracking.lab_id import TAG as LAB_TAG
from fcnlab.tracking.names import MAX_USER
from fcnlab.trial.commit import find_commit

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient


class BestCell(NamedTuple):
    """The cell of a grid with the greatest mean mIoU on the reported split.

    Attributes:
        label: label of the cell.
        miou: its mean mIoU, a fraction of 1.
        seeds: number of finished seeds.
    """

    label: str
    miou: float
    seeds: int


def describe_origin(grid: TrackedGrid) -> dict[str, str]:
    """Return the tags of all runs of a grid: the user, and the commit of the lab.

    Args:
        grid: the grid.
    """
    tags = {"mlflow.source.type": "LOCAL"}
    user = _find_user()
    if user is not None:
        tags["mlflow.user"] = user[:MAX_USER]
    commit = find_commit(grid.lab.root)
    if commit is not None:
        tags["fcnlab.lab_commit"] = commit
    return tags


def create_grid_run(client: MlflowClient, experiment: str, grid: TrackedGrid, lab: str) -> str:
    """Create the run of a grid.

    Args:
        client: client of the store.
        experiment: id of the grid's experiment.
        grid: the grid.
        lab: id of its lab.

    Returns:
        Id of the run.
    """
    note = f"{grid.question}\n\n{NOTE}"
    tags = {
        "fcnlab.role": "grid",
        LAB_TAG: lab,
        "mlflow.runName": clean_run_name(grid.name),
        "mlflow.note.content": clean_tag(note),
    }
    return str(client.create_run(experiment, tags=tags).info.run_id)


def update_grid_run(client: MlflowClient, run_id: str, grid: TrackedGrid, origin: Mapping[str, str]) -> None:
    """Write the commits, the user and the command of a driver that runs the grid.

    Args:
        client: client of the store.
        run_id: id of the grid's run.
        grid: the grid.
        origin: tags from `describe_origin`.
    """
    from mlflow.entities import RunTag

    tags = {**origin, "mlflow.source.name": grid.command}
    commit = find_commit()
    if commit is not None:
        tags["mlflow.source.git.commit"] = commit
    client.log_batch(run_id, tags=[RunTag(name, clean_tag(value)) for name, value in tags.items()])


def log_best_cell(client: MlflowClient, run_id: str, best: BestCell) -> None:
    """Write the best cell of a grid to its run, unless it is there.

    Args:
        client: client of the store.
        run_id: id of the grid's run.
        best: the cell.
    """
    from mlflow.entities import Metric, RunTag

    known = client.get_run(run_id).data
    values = {"best/miou": best.miou, "best/seeds": float(best.seeds)}
    if known.tags.get("fcnlab.best_cell") == clean_tag(best.label) and values.items() <= known.metrics.items():
        return
    step = 1 + max((point.step for point in client.get_metric_history(run_id, "best/miou")), default=-1)
    now = int(time.time() * 1000)
    metrics = [Metric(name, value, now, step) for name, value in values.items()]
    client.log_batch(run_id, metrics=metrics, tags=[RunTag("fcnlab.best_cell", clean_tag(best.label))])


def _find_user() -> str | None:
    """Return the name of the user; None in a container that has no name for its user."""
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):
        return None
