"""The records of a grid as pandas frames."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from fcnlab.execute.plan import Plan
from fcnlab.tracking import Book

FIGURES = ("miou", "pixel_acc", "mean_acc", "fw_iou")
COSTS = ("params", "trainable_params", "gmacs", "train_seconds", "evaluate_seconds", "images_per_s")
PARTS = ("variant", "backbone", "head", "upsampler", "dataset", "recipe")


def trials_frame(plan: Plan, book: Book) -> pd.DataFrame:
    """One row a planned trial, in the order of cells and seeds, also for those that are missing or failed.

    Columns: `key`, `cell`, `seed`, `status` (finished, failed, running, missing), `failure`, the parts' names, the
    grid's axes, `miou` and `pixel_acc` as the grid reports them, the figures of each split (`val_miou`,
    `test_miou`, ..., at the last epoch; `..._best` at the epoch best on val), costs, where it ran, `run_id`.
    Figures are fractions of 1, and nan where there is none.
    """
    runs = {run["tags"]["fcnlab.key"]: run for run in reversed(book.runs())}
    order = {id(cell): index for index, cell in enumerate(plan.grid.cells)}
    planned = sorted(plan.trials, key=lambda p: (order[id(p.cell)], p.trial.seed))
    rows = [_row(p.cell.label, p.cell.axes, p.trial, runs.get(p.trial.key)) for p in planned]
    frame = pd.DataFrame(rows)
    splits = [f"{split}_{figure}" for split in ("val", "test") for figure in FIGURES]
    numbers = ["miou", "pixel_acc", *splits, *(f"{name}_best" for name in splits), "best_epoch", *COSTS]
    for name in numbers:
        column = frame[name] if name in frame else pd.Series(np.nan, index=frame.index)
        frame[name] = column.astype(float)
    leading = [name for name in frame.columns if name not in numbers]
    empty = [name for name in numbers if name not in ("miou", "pixel_acc") and frame[name].isna().all()]
    return frame[[*leading, *numbers]].drop(columns=empty)


def _row(label: str, axes: Any, trial: Any, run: dict[str, Any] | None) -> dict[str, Any]:
    row: dict[str, Any] = {"key": trial.key, "cell": label, "seed": trial.seed, "status": _status(run)}
    tags = run["tags"] if run is not None else {}
    row["failure"] = tags.get("fcnlab.failure", "") if row["status"] == "failed" else ""
    row |= {part: trial.names[part] for part in PARTS}
    row |= {axis: _plain(value) for axis, value in axes.items() if axis not in PARTS}
    if run is not None and row["status"] == "finished":
        row |= {name: value for name, value in run["metrics"].items() if not name.startswith("epoch_")}
        for name in ("device", "precision", "threads", "system", "versions", "data"):
            row[name] = tags.get(f"fcnlab.{name}", "")
        row["report_split"] = tags.get("fcnlab.report_split", "")
        row["commit"] = tags.get("mlflow.source.git.commit", "")
    row["run_id"] = run["run_id"] if run is not None else ""
    return row


def _plain(value: Any) -> Any:
    """The value of an axis as a column can hold it; true and false as YAML says them."""
    if isinstance(value, bool):
        return str(value).lower()
    return value if isinstance(value, int | float | str) else str(value)


def _status(run: dict[str, Any] | None) -> str:
    if run is None:
        return "missing"
    if "fcnlab.published" not in run["tags"]:
        return "running" if run["status"] == "RUNNING" else "missing"
    return "finished" if run["status"] == "FINISHED" else "failed"


def cells_frame(frame: pd.DataFrame, axes: list[str], baseline: str) -> pd.DataFrame:
    """One row a cell: figures as mean and standard deviation over its n finished seeds, and Δ to the baseline.

    `delta` is the mean over the seeds that both cells have of the difference in mIoU: same seed, same batches, so
    the difference is paired; `delta_std` is its standard deviation and `delta_n` the number of pairs. A standard
    deviation is the sample's (n - 1), and nan for one seed. Figures are fractions of 1.
    """
    reference = frame[frame["cell"] == baseline].set_index("seed")["miou"]
    rows = []
    for cell, group in frame.groupby("cell", sort=False):
        finished = group[group["status"] == "finished"]
        row: dict[str, Any] = {"cell": cell} | {axis: group[axis].iloc[0] for axis in axes}
        row |= {"n": len(finished), "planned": len(group), "failed": int((group["status"] == "failed").sum())}
        for figure in ("miou", "pixel_acc"):
            values = finished[figure] if figure in finished else pd.Series(dtype=float)
            row |= {figure: values.mean(), f"{figure}_std": values.std()}
        row |= (
            _difference(finished, reference)
            if cell != baseline
            else {"delta": 0.0, "delta_std": 0.0, "delta_n": len(finished)}
        )
        for name in ("params", "gmacs", "train_seconds", "images_per_s"):
            row[name] = finished[name].mean() if name in finished else np.nan
        row["baseline"] = cell == baseline
        rows.append(row)
    return pd.DataFrame(rows)


def _difference(finished: pd.DataFrame, reference: pd.Series[float]) -> dict[str, float]:
    if "miou" not in finished:
        return {"delta": np.nan, "delta_std": np.nan, "delta_n": 0}
    paired = (finished.set_index("seed")["miou"] - reference).dropna()
    return {"delta": paired.mean(), "delta_std": paired.std(), "delta_n": len(paired)}
