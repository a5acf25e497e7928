"""Provenance of a report: command, versions, hardware, data and the keys of the trials."""

from __future__ import annotations

from shlex import quote

import pandas as pd

from fcnlab.config.dataset import CustomDataset, Dataset, FolderDataset, KnownDataset
from fcnlab.config.grid.axes import format_value
from fcnlab.config.grid.grid import Grid
from fcnlab.config.grid.name import path_in_lab
from fcnlab.extensions import fcnlab_command
from fcnlab.paths import expand_home
from fcnlab.report.footnotes.names import distinct_texts
from fcnlab.report.trial_records import TrialRecords


def collect_provenance(grid: Grid, trials: pd.DataFrame) -> dict[str, object]:
    """Return the provenance of a grid's trials as values for JSON.

    Args:
        grid: the grid.
        trials: frame with one row per trial.
    """
    finished = trials[trials["status"] == "finished"]
    return {
        "grid": grid.name,
        "question": grid.file.question,
        "command": rerun_command(grid),
        "checkpoint": grid.file.checkpoint,
        "versions": distinct_texts(finished["versions"]),
        "hardware": distinct_texts(finished["device"]),
        "precision": distinct_texts(finished["precision"]),
        "system": distinct_texts(finished["system"]),
        "commit": distinct_texts(finished["commit"]),
        "data": distinct_texts(finished["data"]),
        "train_seconds": float(finished["train_seconds"].sum()),
        "trials": [
            {"key": key, "cell": cell, "seed": int(seed), "status": status}
            for key, cell, seed, status in trials[["key", "cell", "seed", "status"]].itertuples(index=False)
        ],
    }


def describe_provenance(grid: Grid, trials: pd.DataFrame) -> list[tuple[str, str]]:
    """Return the provenance for readers, as pairs of a name and a text.

    Args:
        grid: the grid.
        trials: frame with one row per trial.
    """
    provenance = collect_provenance(grid, trials)
    named = [(name, _joined(provenance[name])) for name in ("hardware", "precision", "system", "versions", "commit")]
    seconds = trials["train_seconds"].sum()
    return [
        *named,
        *_describe_extensions(grid),
        ("training time", f"{seconds:,.0f} s, summed over the trials"),
        ("data", _joined(provenance["data"])),
    ]


def _describe_extensions(grid: Grid) -> list[tuple[str, str]]:
    """Return the loss terms and transforms of the recipes that are not built in, as pairs of a kind and a text."""
    recipes = [cell.recipe for cell in grid.cells]
    described = []
    for kind, specs in (
        ("loss", [recipe.loss.custom for recipe in recipes]),
        ("transform", [recipe.transform for recipe in recipes]),
    ):
        texts = dict.fromkeys(format_value(spec.content()) for spec in specs if spec is not None)
        if texts:
            described.append((kind, "; ".join(texts)))
    return described


def describe_dates(records: TrialRecords) -> list[tuple[str, str]]:
    """Return the days on which the trials ended, as a pair of a name and a text; empty where none has finished.

    Args:
        records: records of the finished trials.
    """
    days = sorted({record.ended[:10] for by_seed in records.by_cell.values() for record in by_seed.values()})
    if not days:
        return []
    return [("date", days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}")]


def _joined(values: object) -> str:
    return "; ".join(values) if isinstance(values, list) and values else "not recorded"


def rerun_command(grid: Grid) -> str:
    """Return the command, quoted for a shell, that runs the grid again from the folder of its lab.

    Args:
        grid: the grid.
    """
    needs_root = any(_below_data_root(c.dataset) or c.variant.backbone.weights_file for c in grid.cells)
    command = f"{fcnlab_command(*grid.cells)} grid run {quote(path_in_lab(grid.path))}"
    return f"{command} --data-root DIR" if needs_root else command


def _below_data_root(dataset: Dataset) -> bool:
    """Return whether a dataset needs a data root: it has a known layout, or folders with relative paths."""
    if isinstance(dataset, FolderDataset):
        return not all(expand_home(folder).is_absolute() for folder in (dataset.images, dataset.masks))
    if isinstance(dataset, CustomDataset):
        return dataset.folder is not None and not expand_home(dataset.folder).is_absolute()
    return isinstance(dataset, KnownDataset)
