"""Pandas frames of the trials and of the cells of a grid; `docs/reading-a-report.md` describes the columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from fcnlab.config.grid.axes import format_name
from fcnlab.config.grid.file import GridFile
from fcnlab.report.trial_records import TrialRecords
from fcnlab.runner.plan import Plan, PlannedTrial
from fcnlab.tracking.fields import extract_columns, extract_tags
from fcnlab.tracking.names import ACCURACIES, COST_METRICS, read_columns
from fcnlab.tracking.tracker import MlflowTracker

COMPONENTS = ("variant", "backbone", "head", "upsampler", "dataset", "recipe")
NUMBERS = (
    *ACCURACIES,
    *(f"{split}_{metric}" for split in ("val", "test") for metric in ACCURACIES),
    *(f"{split}_{metric}_best" for split in ("val", "test") for metric in ACCURACIES),
    *("best_epoch", "pruned_after", *COST_METRICS, "device_hours"),
)
"""Numeric columns of a trial; missing values are NaN."""

CURVES = ("loss", "lr", "images_per_s", "seconds", "val_miou", "val_pixel_acc")
"""Numeric columns of an epoch."""

ENVIRONMENT = ("device", "precision", "threads", "system", "versions", "data", "report_split")
"""Columns of the environment, the data and the split of a trial; empty where it has not finished."""


def trials_frame(plan: Plan, tracker: MlflowTracker | None) -> pd.DataFrame:
    """Return a frame with one row per planned trial, in the order of cells and seeds.

    Missing, failed and pruned trials have a row, too. Metrics are fractions of 1, times are in seconds. Only the
    columns of the axes differ between grids.

    Args:
        plan: plan of the grid.
        tracker: source of the trials that were run elsewhere; None to use only `runs/`.
    """
    runs = {run["tags"]["fcnlab.key"]: run for run in reversed(tracker.list_trials())} if tracker is not None else {}
    planned = [_row(one, runs.get(one.key), plan.grid.file) for one in _sort_trials(plan)]
    frame = pd.DataFrame(planned)
    for name in NUMBERS:
        frame[name] = (frame[name] if name in frame else pd.Series(np.nan, index=frame.index)).astype(float)
    return frame[[*(name for name in frame.columns if name not in NUMBERS), *NUMBERS]]


def _row(planned: PlannedTrial, run: Mapping[str, Any] | None, file: GridFile) -> dict[str, Any]:
    status, metrics, tags = _look_up(planned, run, file)
    row: dict[str, Any] = {"key": planned.key, "cell": planned.cell.label, "seed": planned.trial.seed, "status": status}
    row["failure"] = tags.get("fcnlab.failure", "") if status == "failed" else ""
    row |= {kind: planned.trial.names[kind] for kind in COMPONENTS}
    row |= {axis: _to_column_value(value) for axis, value in planned.cell.axes.items() if axis not in COMPONENTS}
    finished = status == "finished"
    row |= {name: tags.get(f"fcnlab.{name}", "") if finished else "" for name in ENVIRONMENT}
    row["commit"] = tags.get("mlflow.source.git.commit", "") if finished else ""
    row["run_id"] = run["run_id"] if run is not None else ""
    if finished:
        row |= _reported_metrics(metrics, row["report_split"], file.checkpoint)
        row |= {name: value for name, value in metrics.items() if name in NUMBERS}
        seconds = metrics.get("train_seconds", 0.0) + metrics.get("evaluate_seconds", 0.0)
        devices = int(tags.get("fcnlab.devices", 1)) / int(tags.get("fcnlab.trials_per_device", 1))
        row["device_hours"] = devices * seconds / 3600
    if status == "pruned":
        epoch = planned.pruned_after
        row["pruned_after"] = epoch if epoch is not None else float(tags["fcnlab.pruned_after"])
    return row


def _reported_metrics(metrics: Mapping[str, float], split: str, checkpoint: str) -> dict[str, float]:
    """Return the metrics of the reported split at the grid's checkpoint, from the columns of each split."""
    suffix = "_best" if checkpoint == "best" else ""
    columns = {name: f"{split}_{name}{suffix}" for name in ACCURACIES}
    return {name: metrics[column] for name, column in columns.items() if column in metrics}


def curves_frame(plan: Plan, records: TrialRecords) -> pd.DataFrame:
    """Return a frame with one row per trial and epoch, also of trials that run or have failed.

    Args:
        plan: plan of the grid.
        records: records of the finished trials.

    Returns:
        Columns `cell`, one per axis, `seed`, `key`, `epoch` and `CURVES`, fields of `EpochRecord`.
    """
    rows = []
    for planned in _sort_trials(plan):
        cell, seed = planned.cell, planned.trial.seed
        record = records.by_cell.get(cell.label, {}).get(seed) or planned.record
        axes = {axis: _to_column_value(value) for axis, value in cell.axes.items()}
        start = {"cell": cell.label, **axes, "seed": seed, "key": planned.key}
        epochs = record.epochs if record is not None else planned.folder.read_progress()
        rows += [start | epoch.model_dump(include=set(CURVES) | {"epoch"}) for epoch in epochs]
    frame = pd.DataFrame(rows, columns=["cell", *plan.grid.axes, "seed", "key", "epoch", *CURVES])
    return frame.astype(dict.fromkeys(CURVES, float) | {"seed": int, "epoch": int})


def _sort_trials(plan: Plan) -> list[PlannedTrial]:
    """Return the planned trials in the order of cells and seeds."""
    order = {id(cell): index for index, cell in enumerate(plan.grid.cells)}
    return sorted(plan.trials, key=lambda planned: (order[id(planned.cell)], planned.trial.seed))


def _look_up(
    planned: PlannedTrial, run: Mapping[str, Any] | None, file: GridFile
) -> tuple[str, Mapping[str, float], Mapping[str, str]]:
    """Return status, metrics and tags of a trial from its record, or from the tracker without a finished record."""
    tags = run["tags"] if run is not None else {}
    if planned.status == "damaged":
        return "damaged", {}, tags
    if planned.state == "pruned":
        return "pruned", {}, tags
    record = planned.record if planned.status in ("finished", "failed") else None
    tracked = _status(run, can_be_pruned=file.early_stopping is not None)
    if record is not None and (record.status == "finished" or tracked != "finished"):
        return record.status, extract_columns(record, file.checkpoint), extract_tags(record)
    return tracked, read_columns(run["metrics"]) if run is not None else {}, tags


def _status(run: Mapping[str, Any] | None, *, can_be_pruned: bool) -> str:
    """Return the status of a trial from its run in the tracker, which keeps the tag of an earlier `early_stopping`."""
    if run is None:
        return "missing"
    if "fcnlab.published" in run["tags"] and run["status"] in ("FINISHED", "FAILED"):
        return "finished" if run["status"] == "FINISHED" else "failed"
    if can_be_pruned and "fcnlab.pruned_after" in run["tags"] and run["status"] != "RUNNING":
        return "pruned"
    return "running" if run["status"] == "RUNNING" else "missing"


def _to_column_value(value: Any) -> Any:
    """Return the value of an axis as a number or text; booleans as in YAML."""
    return value if isinstance(value, int | float | str) and not isinstance(value, bool) else format_name(value)


def cells_frame(frame: pd.DataFrame, axes: Sequence[str], baselines: Mapping[str, str]) -> pd.DataFrame:
    """Return a frame with one row per cell.

    Metrics are means and sample standard deviations (n - 1; NaN for one seed) over the n finished seeds, as fractions
    of 1. `delta` is the mean difference in mIoU to the baseline of the cell's dataset over the `delta_n` common seeds,
    and `delta_std` its standard deviation; trials with the same seed see the same batches, so the difference is paired.

    Args:
        frame: frame with one row per trial.
        axes: axes of the grid.
        baselines: label of each cell -> label of the baseline with which it is compared.
    """
    finished_trials = frame[frame["status"] == "finished"]
    references = {
        baseline: finished_trials[finished_trials["cell"] == baseline].set_index("seed")["miou"]
        for baseline in set(baselines.values())
    }
    rows = []
    for cell, group in frame.groupby("cell", sort=False):
        finished, baseline = group[group["status"] == "finished"], baselines[str(cell)]
        row: dict[str, Any] = {"cell": cell} | {axis: group[axis].iloc[0] for axis in axes}
        row |= {"n": len(finished), "planned": len(group), "failed": int((group["status"] == "failed").sum())}
        row |= {"pruned": int((group["status"] == "pruned").sum()), "pruned_after": group["pruned_after"].max()}
        row |= _summarize(finished)
        row |= _difference(finished, references[baseline])
        row |= {name: finished[name].mean() for name in ("params", "gmacs", "train_seconds", "images_per_s")}
        row |= {"peak_memory": finished["peak_memory"].max(), "device_hours": finished["device_hours"].sum(min_count=1)}
        row["baseline"] = cell == baseline
        rows.append(row)
    return pd.DataFrame(rows)


def _summarize(finished: pd.DataFrame) -> dict[str, float]:
    """Summarize the metrics of the finished seeds at the reported, the last and the best epoch."""
    miou = finished["miou"]
    summary = {"miou": miou.mean(), "miou_std": miou.std(), "miou_median": miou.median()}
    summary |= {"miou_min": miou.min(), "miou_max": miou.max()}
    for name in ACCURACIES[1:]:
        summary |= {name: finished[name].mean(), f"{name}_std": finished[name].std()}
    on_test = (finished["report_split"] == "test").all()
    for epoch, suffix in (("last", ""), ("best", "_best")):
        values = finished[f"{'test' if on_test else 'val'}_miou{suffix}"]
        summary |= {f"miou_{epoch}": values.mean(), f"miou_{epoch}_std": values.std()}
    return summary


def _difference(finished: pd.DataFrame, reference: pd.Series[float]) -> dict[str, float]:
    """Summarize the paired differences to the mIoU of the baseline by seed."""
    paired = (finished.set_index("seed")["miou"] - reference).dropna()
    return {"delta": paired.mean(), "delta_std": paired.std(), "delta_n": len(paired)}
