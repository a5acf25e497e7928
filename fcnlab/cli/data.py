"""`fcnlab data list|check`: which datasets there are, and whether their files are sound."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from fcnlab.cli.options import DataRoot, LabOption, console
from fcnlab.errors import DataError

if TYPE_CHECKING:
    from fcnlab.places import Lab
    from fcnlab.spec.config import Dataset

app = typer.Typer(help="Look at datasets.", no_args_is_help=True)


@app.command("list", epilog="Example: fcnlab data list --data-root ~/data")
def list_(lab: LabOption = None, data_root: DataRoot = None) -> None:
    """List the datasets: classes, images a split, and what is missing."""
    from rich.table import Table

    from fcnlab.places import Lab

    place = Lab.find(lab=lab, data_root=data_root)
    table = Table("name", "classes", "images", "what it is")
    for name in place.catalog.names("dataset"):
        spec = _dataset(place, name)
        try:
            dataset = place.dataset(spec)
            images = ", ".join(f"{split} {len(dataset.split(split))}" for split in _splits(spec))
            table.add_row(name, str(len(dataset.classes)), images, spec.about)
        except DataError as error:
            table.add_row(name, "", "not there", f"{spec.about}\n{error}")
    console().print(table)


@app.command(epilog="Example: fcnlab data check camvid --data-root ~/data")
def check(
    name: Annotated[str, typer.Argument(help="A dataset of the registry", show_default=False)],
    lab: LabOption = None,
    data_root: DataRoot = None,
) -> None:
    """Read every image and mask, and report all faults at once. Exit code 2 if there are any."""
    from rich.table import Table

    from fcnlab.data.base import IGNORE
    from fcnlab.data.check import check_splits
    from fcnlab.places import Lab

    place = Lab.find(lab=lab, data_root=data_root)
    spec = _dataset(place, name)
    dataset = place.dataset(spec)
    checked = list(check_splits(dataset, _splits(spec)))
    table = Table("class", *(f"{c.split} %" for c in checked), title=f"{name}: share of all pixels")
    for label, title in [*enumerate(dataset.classes), (IGNORE, "(ignored)")]:
        table.add_row(title, *(f"{100 * c.pixels[label] / max(1, c.pixels.sum()):.2f}" for c in checked))
    console().print(table)
    faults = [fault for c in checked for fault in c.faults]
    typer.echo(", ".join(f"{c.split}: {c.images} images, {len(c.faults)} faults" for c in checked))
    if faults:
        raise DataError("\n".join(faults))


def _dataset(lab: Lab, name: str) -> Dataset:
    from fcnlab.spec.config import Dataset

    spec = lab.catalog.get("dataset", name)
    assert isinstance(spec, Dataset)
    return spec


def _splits(spec: Dataset) -> list[str]:
    splits = spec.splits
    return [split for split in dict.fromkeys((splits.train, splits.val, splits.test)) if split is not None]
