"""Runs that exist twice, because the answer to the creation of the first was lost and the client requested it again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.tracking import MlflowClient


def delete_repeated_runs(client: MlflowClient, running: Iterable[Run], parent: str, kept: Mapping[str, str]) -> None:
    """Delete the empty runs of a grid and of trials that have another run.

    Args:
        client: client of the store.
        running: the runs of the experiment that have not ended, as an empty run has not.
        parent: id of the grid's run.
        kept: key of the trial by id of its run, for the runs that are kept.
    """
    keys = set(kept.values())
    for run in running:
        tags, run_id = run.data.tags, str(run.info.run_id)
        is_empty_grid = tags.get("fcnlab.role") == "grid" and "mlflow.source.name" not in tags
        is_empty_trial = tags.get("fcnlab.key") in keys and not run.data.params
        if run_id != parent and run_id not in kept and (is_empty_grid or is_empty_trial):
            client.delete_run(run_id)
