"""`fcnlab data check`: find problems in the files of a dataset."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from fcnlab.cli.data.entry import DatasetName, dataset_entry
from fcnlab.cli.options import DataRoot, LabOption
from fcnlab.cli.output import AsJson, print_json
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
    from fcnlab.cli.data.progress import sample_bars
    from fcnlab.data.datasets.base import FileDataset
    from fcnlab.data.inspection.check import check_splits
    from fcnlab.lab import Lab

    lab_ = Lab.find(root=lab, data_root=data_root)
    spec = dataset_entry(lab_, name)
    dataset = lab_.open_dataset(spec)
    used = spec.used_splits
    extra = [split for split in every_split(dataset) if split not in used] if all_splits else []
    with sample_bars() as bars:
        checked = check_splits(dataset, used, extra=extra, progress=bars)
    root = dataset.root if isinstance(dataset, FileDataset) else None
    problems = sum(len(c.problems) for c in checked)
    if as_json:
        splits = [asdict(c) for c in checked]
        print_json({"dataset": name, "root": root, "sound": not problems, "splits": splits})
    else:
        _show(name, checked, root)
    if problems:
        raise DataError(
            f"dataset {name}: {format_count(problems, 'problem')} in "
            f"{format_count(sum(c.images for c in checked), 'image')}"
        )


def every_split(dataset: Dataset) -> tuple[str, ...]:
    """Return the names of all splits of a dataset of files; none for generated datasets."""
    from fcnlab.data.datasets.base import FileDataset
    from fcnlab.data.datasets.folder import Folder

    if isinstance(dataset, Folder):
        return dataset.files.splits()
    return dataset.split_names if isinstance(dataset, FileDataset) else ()


def _show(name: str, checked: list[CheckedSplit], root: Path | None) -> None:
    _table(f"{name}: problems", [problem for c in checked for problem in c.problems], root)
    _table(f"{name}: notes", [note for c in checked for note in c.notes], root)
    counts = []
    for one in checked:
        problems = format_count(len(one.problems), "problem")
        counts.append(f"{one.split}: {format_count(one.images, 'image')}, {problems}")
    typer.echo("; ".join(counts) + (f", below {root}" if root is not None else ""))


def _table(title: str, found: list[Problem], root: Path | None) -> None:
    if not found:
        return
    rows = [(one.split, _below(one.where, root), one.kind, _below(one.what, root), one.remedy) for one in found]
    terminal = create_console()
    headings = ("split", "file or id", "kind", "problem", "remedy")
    terminal.print(format_table(headings, rows, terminal.width, title=title))


def _below(text: str, root: Path | None) -> str:
    """Return a text with paths relative to the dataset's folder, which is printed in the last line."""
    return text.replace(f"{root}/", "") if root is not None else text
