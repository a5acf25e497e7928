"""With what, where and from what the figures of a report came."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from fcnlab.config.dataset import Dataset, FolderDataset, KnownDataset
from fcnlab.config.grid.grid import Grid
from fcnlab.report.footnotes import distinct


def provenance(grid: Grid, trials: pd.DataFrame) -> dict[str, object]:
    """As plain values; each key names its trial's whole configuration by content."""
    finished = trials[trials["status"] == "finished"]
    return {
        "grid": grid.name,
        "question": grid.file.question,
        "command": command(grid),
        "checkpoint": grid.file.checkpoint,
        "versions": distinct(finished["versions"]),
        "hardware": distinct(finished["device"]),
        "precision": distinct(finished["precision"]),
        "system": distinct(finished["system"]),
        "commit": distinct(finished["commit"]),
        "data": distinct(finished["data"]),
        "train_seconds": float(finished["train_seconds"].sum()),
        "trials": [
            {"key": key, "cell": cell, "seed": int(seed), "status": status}
            for key, cell, seed, status in trials[["key", "cell", "seed", "status"]].itertuples(index=False)
        ],
    }


def facts(grid: Grid, trials: pd.DataFrame) -> list[tuple[str, str]]:
    """The same for people, a name and a text each."""
    found = provenance(grid, trials)
    named = [(name, _joined(found[name])) for name in ("hardware", "precision", "system", "versions", "commit")]
    seconds = trials["train_seconds"].sum()
    return [*named, ("training time", f"{seconds:,.0f} s, summed over the trials"), ("data", _joined(found["data"]))]


def _joined(values: object) -> str:
    return "; ".join(values) if isinstance(values, list) and values else "not recorded"


def command(grid: Grid) -> str:
    """The one command that makes this result again."""
    needs_files = any(_below_data_root(c.dataset) or c.variant.backbone.weights_file for c in grid.cells)
    return f"fcnlab grid run experiments/{grid.path.name}" + (" --data-root DIR" if needs_files else "")


def _below_data_root(dataset: Dataset) -> bool:
    """Whether a dataset's files are looked for below the data root: a known layout, or folders that are not absolute.

    Lists that are not absolute are looked for in the lab first, where a lab that is handed on has them.
    """
    if isinstance(dataset, FolderDataset):
        return not all(Path(folder).expanduser().is_absolute() for folder in (dataset.images, dataset.masks))
    return isinstance(dataset, KnownDataset)
