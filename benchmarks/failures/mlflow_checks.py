"""Checks of an MLflow store against the records of a lab."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.failures.mlflow_server import PASSWORD
from fcnlab.lab import Lab
from fcnlab.runner.plan import make_plan
from fcnlab.tracking.store import open_client

METRICS = {"miou", "train/loss", "val/miou", "cost/params"}
"""Metrics that each run must have."""


def list_runs(lab: Lab, file: Path) -> list[Any]:
    """Return the active runs of a grid's experiment.

    Args:
        lab: the lab, with the server as its store.
        file: the grid file.
    """
    client = open_client(lab.tracking_uri)
    experiment = client.get_experiment_by_name(f"fcnlab/{file.stem}")
    return list(client.search_runs([experiment.experiment_id], max_results=1000))


def list_identities(lab: Lab, file: Path) -> list[tuple[Any, ...]]:
    """Return the id, the status and, for trials, the end of each run: that of the grid is its last publication.

    Args:
        lab: the lab, with the server as its store.
        file: the grid file.
    """
    infos = [(run.info, run.data.tags["fcnlab.role"] == "trial") for run in list_runs(lab, file)]
    return [(info.run_id, info.status, info.end_time if is_trial else None) for info, is_trial in infos]


def check_store(lab: Lab, file: Path) -> list[str]:
    """Compare the runs in MLflow with the records, and return what is wrong.

    Args:
        lab: the lab.
        file: the grid file.
    """
    runs, client = list_runs(lab, file), open_client(lab.tracking_uri)
    parents = [run for run in runs if run.data.tags["fcnlab.role"] == "grid"]
    children = [run for run in runs if run.data.tags["fcnlab.role"] == "trial"]
    trials = {planned.key: planned for planned in make_plan(lab.load_grid(file), lab).trials}
    bad = []
    if Counter(run.data.tags["fcnlab.key"] for run in children) != Counter(trials.keys()):
        bad.append(f"{len(children)} runs of {len(trials)} trials")
    if len(parents) != 1:
        bad.append(f"{len(parents)} runs of the grid")
    for run in runs:
        name = run.data.tags["mlflow.runName"]
        if run.info.status != "FINISHED":
            bad.append(f"{name}: {run.info.status}")
        if run not in children:
            continue
        if run.data.tags["mlflow.parentRunId"] != parents[0].info.run_id:
            bad.append(f"{name}: its parent is not the run of the grid")
        if len(run.data.params) < 60 or METRICS - run.data.metrics.keys():
            bad.append(f"{name}: {len(run.data.params)} parameters, metrics {sorted(run.data.metrics)}")
        repeated = [key for key in run.data.metrics if len(client.get_metric_history(run.info.run_id, key)) != 1]
        if repeated:
            bad.append(f"{name}: repeated points of {', '.join(repeated)}")
        files = {item.path for item in client.list_artifacts(run.info.run_id)}
        if not {"record.json", "counts.npz", "samples"} <= files:
            bad.append(f"{name}: only the files {sorted(files)}")
    return bad


def check_reasons(reasons: Sequence[str], deferred: Mapping[str, str], *, expect: bool) -> list[str]:
    """Return what is wrong with the reported errors: if publishing was deferred, there is one line, without a password.

    Args:
        reasons: the reported errors.
        deferred: the reasons of the outcome, by tracker.
        expect: whether publishing must have been deferred.
    """
    bad = [f"the password is in: {reason}" for reason in reasons if PASSWORD in reason]
    if expect and len(reasons) != 1:
        bad.append(f"{len(reasons)} errors were reported: {reasons}")
    if bool(deferred) > bool(reasons):
        bad.append(f"deferred without a report: {deferred}")
    return bad + [
        f"more than one line: {reason}" for reason in reasons if "\n" in reason and "restore it" not in reason
    ]
