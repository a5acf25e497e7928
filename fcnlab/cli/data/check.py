"""`fcnlab data check`: find problems in the files of a dataset."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from fcnlab.cli.options import DataRoot, DatasetName, LabOption
from fcnlab.cli.output import AsJson, print_json, sample_bars
from fcnlab.console import create_console, format_count, format_table
from fcnlab.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path

    from fcnlab.data.datasets.base import Dataset
    from fcnlab.data.inspection.check import CheckedSplit
    from fcnlab.data.inspection.diagnosis import Problem

EXAMPLE = "Example: fcnlab data check camvid --data-root ~/data"

AllSplits = Annotated[
    bool, typer.Option("--all-splits", help="Also read the splits that trials do not use, such as trainval")
]


def check(
    name: DatasetName,
    all_splits: AllSplits = False,
    as_json: AsJson = False,
    lab: LabOption = None,
    data_root: DataRoot = None,
) -> None:
    """Read every image and mask, and report all problems at once. Exit code 2 if there are any."""
    from fcnlab.config.dataset import FolderDataset
    from fcnlab.data.datasets.base import FileDataset
    from fcnlab.data.inspection.check import check_splits
    from fcnlab.lab import Lab

    lab_ = Lab.find(root=lab, data_root=data_root)
    spec = lab_.registry.get("dataset", name)
    dataset = lab_.open_dataset(spec)
    used = spec.used_splits
    extra = [split for split in every_split(dataset) if split not in used] if all_splits else []
    with sample_bars() as bars:
        any_palette = isinstance(spec, FolderDataset) and spec.palettes == "any"
        checked = check_splits(dataset, used, extra=extra, progress=bars, any_palette=any_palette)
    root = dataset.root if isinstance(dataset, FileDataset) else None
    problems = sum(len(split.problems) for split in checked)
    if as_json:
        splits = [asdict(split) for split in checked]
        print_json({"dataset": name, "root": root, "sound": not problems, "splits": splits})
    else:
        _show(name, checked, root)
    if problems:
        raise DataError(
            f"dataset {name}: {format_count(problems, 'problem')} in "
            f"{format_count(sum(split.images for split in checked), 'image')}"
        )


def every_split(dataset: Dataset) -> tuple[str, ...]:
    """Return the names of all splits of a dataset of files; none for generated datasets."""
    from fcnlab.data.datasets.base import FileDataset

    return dataset.split_names if isinstance(dataset, FileDataset) else ()


def _show(name: str, checked: list[CheckedSplit], root: Path | None) -> None:
    _print_problems(f"{name}: problems", [problem for split in checked for problem in split.problems], root)
    _print_problems(f"{name}: notes", [note for split in checked for note in split.notes], root)
    counts = []
    for split in checked:
        problems = format_count(len(split.problems), "problem")
        counts.append(f"{split.split}: {format_count(split.images, 'image')}, {problems}")
    typer.echo("; ".join(counts) + (f", below {root}" if root is not None else ""))


def _print_problems(title: str, problems: list[Problem], root: Path | None) -> None:
    if not problems:
        return
    rows = [
        (problem.split or "–", _below(problem.where, root), problem.kind, _below(problem.what, root), problem.remedy)
        for problem in problems
    ]
    terminal = create_console()
    headings = ("split", "file or id", "kind", "problem", "remedy")
    terminal.print(format_table(headings, rows, terminal.width, title=title))


def _below(text: str, root: Path | None) -> str:
    """Return a text with paths relative to the dataset's folder, which is printed in the last line."""
    return text.replace(f"{root}/", "") if root is not None else text
