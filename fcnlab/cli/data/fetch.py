"""`fcnlab data fetch`: download a dataset."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from shlex import quote
from typing import TYPE_CHECKING, Annotated

import typer

from fcnlab.cli.options import DataRoot, LabOption
from fcnlab.console import create_console
from fcnlab.errors import DataError, nearest

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from fcnlab.data.download.fetch import DownloadProgress
    from fcnlab.data.download.sources import Source
    from fcnlab.lab import Lab

EXAMPLE = "Example: fcnlab data fetch voc2012 --data-root ~/data"


def fetch(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Name of a dataset with a known source", show_default=False)
    ],
    keep_archives: Annotated[bool, typer.Option("--keep-archives", help="Keep the downloaded archives")] = False,
    lab: LabOption = None,
    data_root: DataRoot = None,
) -> None:
    """Download, verify and unpack a dataset below the data root. Interrupted downloads are resumed."""
    from fcnlab.data.download.fetch import fetch_dataset
    from fcnlab.lab import Lab

    lab_ = Lab.find(root=lab, data_root=data_root)
    sources = _sources(lab_, name)
    if lab_.data_root is None:
        raise DataError(f"{name}: no data root is set; pass --data-root or set FCNLAB_DATA to the folder for datasets")
    for key, source, folder in sources:
        typer.echo(f"{key}: {source.terms}. {source.page}")
        with _show_progress() as progress:
            fetch_dataset(key, source, lab_.data_root, progress, folder=folder, keep_archives=keep_archives)
    if name in lab_.registry.names("dataset"):
        typer.echo(f"next: fcnlab data check {quote(name)} --data-root {quote(str(lab_.data_root))}")


def _sources(lab: Lab, name: str) -> list[tuple[str, Source, str | None]]:
    """Return names, sources and target folders of the archives that a dataset needs."""
    from fcnlab.config.dataset import KnownDataset
    from fcnlab.data.download.sources import EXTRA_SOURCES, SOURCES

    if name not in lab.registry.names("dataset"):
        if name in SOURCES:
            return [(name, SOURCES[name], None)]
        raise DataError(f"no dataset '{name}' has a known source; {nearest(name, SOURCES)}")
    spec = lab.registry.get("dataset", name)
    if not isinstance(spec, KnownDataset) or spec.type not in SOURCES:
        raise DataError(f"dataset {name}: type {spec.type} has no known source; {nearest(name, SOURCES)}")
    extra = EXTRA_SOURCES.get(spec.type, {})
    needed = dict.fromkeys(extra[split] for split in spec.used_splits if split in extra)
    return [(spec.type, SOURCES[spec.type], spec.folder), *((key, SOURCES[key], None) for key in needed)]


class _Progress:
    """Lines and, on a terminal, a progress bar below them."""

    def __init__(self, bars: Progress | None) -> None:
        self._bars = bars
        self._tasks: dict[str, TaskID] = {}

    def log(self, line: str) -> None:
        if self._bars is None:
            typer.echo(line)
        else:
            self._bars.console.print(line, markup=False, highlight=False)

    def update(self, label: str, done: int, total: int | None) -> None:
        if self._bars is None:
            return
        if label not in self._tasks:
            for task in self._tasks.values():
                self._bars.update(task, visible=False)
            self._tasks[label] = self._bars.add_task(label, total=total)
        self._bars.update(self._tasks[label], completed=done, total=total)


@contextmanager
def _show_progress() -> Iterator[DownloadProgress]:
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    terminal = create_console(stderr=True)
    if not terminal.is_terminal:
        yield _Progress(None)
        return
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=terminal, transient=True) as bars:
        yield _Progress(bars)
