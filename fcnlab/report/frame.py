"""The trials and the cells of a grid as pandas frames; `docs/reading-a-report.md` says what each column is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from fcnlab.config.grid.axes import format_value
from fcnlab.runner.plan import Plan, PlannedTrial
from fcnlab.tracking.fields import COST_METRICS, extract_metrics, extract_tags
from fcnlab.tracking.tracker import MlflowTracker

FIGURES = ("miou", "pixel_acc", "mean_acc", "fw_iou")
PARTS = ("variant", "backbone", "head", "upsampler", "dataset", "recipe")
NUMBERS = (
    *("miou", "pixel_acc"),
    *(f"{split}_{figure}" for split in ("val", "test") for figure in FIGURES),
    *(f"{split}_{figure}_best" for split in ("val", "test") for figure in FIGURES),
    *("best_epoch", "stopped_after", *COST_METRICS, "device_hours"),
)
"""Columns of numbers of a trial: nan where there is none."""

PLACES = ("device", "precision", "threads", "system", "versions", "data", "report_split")
"""Columns that say where and with what a trial ran; empty where it has not finished."""


def trials_frame(plan: Plan, tracker: MlflowTracker | None) -> pd.DataFrame:
    """One row a planned trial, in the order of cells and seeds, also for those that are missing, failed or stopped.

    Figures come from the records in runs/, and from the book for trials that were run elsewhere; they are the same
    figures. The columns are always the same but for the grid's axes. Figures are fractions of 1, times are seconds.
    """
    runs = {run["tags"]["fcnlab.key"]: run for run in reversed(tracker.list_trials())} if tracker is not None else {}
    order = {id(cell): index for index, cell in enumerate(plan.grid.cells)}
    planned = sorted(plan.trials, key=lambda p: (order[id(p.cell)], p.trial.seed))
    frame = pd.DataFrame([_row(one, runs.get(one.key), plan.grid.file.checkpoint) for one in planned])
    for name in NUMBERS:
        frame[name] = (frame[name] if name in frame else pd.Series(np.nan, index=frame.index)).astype(float)
    return frame[[*(name for name in frame.columns if name not in NUMBERS), *NUMBERS]]


def _row(planned: PlannedTrial, run: Mapping[str, Any] | None, checkpoint: str) -> dict[str, Any]:
    status, metrics, tags = _found(planned, run, checkpoint)
    row: dict[str, Any] = {"key": planned.key, "cell": planned.cell.label, "seed": planned.trial.seed, "status": status}
    row["failure"] = tags.get("fcnlab.failure", "") if status == "failed" else ""
    row |= {part: planned.trial.names[part] for part in PARTS}
    row |= {axis: _plain(value) for axis, value in planned.cell.axes.items() if axis not in PARTS}
    finished = status == "finished"
    row |= {name: tags.get(f"fcnlab.{name}", "") if finished else "" for name in PLACES}
    row["commit"] = tags.get("mlflow.source.git.commit", "") if finished else ""
    row["run_id"] = run["run_id"] if run is not None else ""
    if finished:
        row |= {name: value for name, value in metrics.items() if name in NUMBERS}
        seconds = metrics.get("train_seconds", 0.0) + metrics.get("evaluate_seconds", 0.0)
        devices = int(tags.get("fcnlab.devices", 1)) / int(tags.get("fcnlab.sharing", 1))
        row["device_hours"] = devices * seconds / 3600
    if status == "stopped":
        row["stopped_after"] = planned.stopped if planned.stopped is not None else float(tags["fcnlab.stopped_after"])
    return row


def _found(
    planned: PlannedTrial, run: Mapping[str, Any] | None, checkpoint: str
) -> tuple[str, Mapping[str, float], Mapping[str, str]]:
    """Status, metrics and tags of a trial by its record, or by the book where it has no finished one here."""
    tags = run["tags"] if run is not None else {}
    if planned.state == "stopped":
        return "stopped", {}, tags
    record = planned.record if planned.status in ("finished", "failed") else None
    in_book = _status(run)
    if record is not None and (record.status == "finished" or in_book != "finished"):
        return record.status, extract_metrics(record, checkpoint), extract_tags(record)
    return in_book, run["metrics"] if run is not None else {}, tags


def _status(run: Mapping[str, Any] | None) -> str:
    """How far a trial is by its run in the tracker."""
    if run is None:
        return "missing"
    if "fcnlab.published" in run["tags"] and run["status"] in ("FINISHED", "FAILED"):
        return "finished" if run["status"] == "FINISHED" else "failed"
    if "fcnlab.stopped_after" in run["tags"] and run["status"] != "RUNNING":
        return "stopped"
    return "running" if run["status"] == "RUNNING" else "missing"


def _plain(value: Any) -> Any:
    """The value of an axis as a column can hold it; true and false as YAML says them."""
    return value if isinstance(value, int | float | str) and not isinstance(value, bool) else format_value(value)


def cells_frame(frame: pd.DataFrame, axes: Sequence[str], baseline: str) -> pd.DataFrame:
    """One row a cell: figures as mean and standard deviation over its n finished seeds, and Δ to the baseline.

    `delta` is the mean over the seeds that both cells have of the difference in mIoU: same seed, same batches, so
    the difference is paired; `delta_std` is its standard deviation and `delta_n` the number of pairs. A standard
    deviation is the sample's (n - 1), and nan for one seed. Figures are fractions of 1.
    """
    reference = frame[(frame["cell"] == baseline) & (frame["status"] == "finished")].set_index("seed")["miou"]
    rows = []
    for cell, group in frame.groupby("cell", sort=False):
        finished = group[group["status"] == "finished"]
        row: dict[str, Any] = {"cell": cell} | {axis: group[axis].iloc[0] for axis in axes}
        row |= {"n": len(finished), "planned": len(group), "failed": int((group["status"] == "failed").sum())}
        row |= {"stopped": int((group["status"] == "stopped").sum()), "stopped_after": group["stopped_after"].max()}
        row |= _spreads(finished)
        row |= _difference(finished, reference)
        row |= {name: finished[name].mean() for name in ("params", "gmacs", "train_seconds", "images_per_s")}
        row |= {"peak_memory": finished["peak_memory"].max(), "device_hours": finished["device_hours"].sum()}
        row["baseline"] = cell == baseline
        rows.append(row)
    return pd.DataFrame(rows)


def _spreads(finished: pd.DataFrame) -> dict[str, float]:
    """How the figures of a cell's finished seeds spread, at the grid's epoch, and at the last and the best one."""
    miou = finished["miou"]
    found = {"miou": miou.mean(), "miou_std": miou.std(), "miou_median": miou.median()}
    found |= {"miou_min": miou.min(), "miou_max": miou.max()}
    found |= {"pixel_acc": finished["pixel_acc"].mean(), "pixel_acc_std": finished["pixel_acc"].std()}
    on_test = (finished["report_split"] == "test").all()
    for epoch, suffix in (("last", ""), ("best", "_best")):
        values = finished[f"{'test' if on_test else 'val'}_miou{suffix}"]
        found |= {f"miou_{epoch}": values.mean(), f"miou_{epoch}_std": values.std()}
    return found


def _difference(finished: pd.DataFrame, reference: pd.Series[float]) -> dict[str, float]:
    paired = (finished.set_index("seed")["miou"] - reference).dropna()
    return {"delta": paired.mean(), "delta_std": paired.std(), "delta_n": len(paired)}
