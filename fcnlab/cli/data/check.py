"""`fcnlab data check`: whether a dataset's files are sound."""

from __future__ import annotations

import typer

from fcnlab.cli.data.entry import DatasetName, dataset_entry, used_splits
from fcnlab.cli.options import DataRoot, LabOption, console
from fcnlab.errors import DataError

EXAMPLE = "Example: fcnlab data check camvid --data-root ~/data"


def check(
    name: DatasetName,
    lab: LabOption = None,
    data_root: DataRoot = None,
) -> None:
    """Read every image and mask, and report all faults at once. Exit code 2 if there are any."""
    from rich.table import Table

    from fcnlab.data.base import IGNORE
    from fcnlab.data.check import check_splits
    from fcnlab.places import Lab

    place = Lab.find(lab=lab, data_root=data_root)
    spec = dataset_entry(place, name)
    dataset = place.dataset(spec)
    checked = list(check_splits(dataset, used_splits(spec)))
    table = Table("class", *(f"{c.split} %" for c in checked), title=f"{name}: share of all pixels")
    for label, title in [*enumerate(dataset.classes), (IGNORE, "(ignored)")]:
        table.add_row(title, *(f"{100 * c.pixels[label] / max(1, c.pixels.sum()):.2f}" for c in checked))
    console().print(table)
    faults = [fault for c in checked for fault in c.faults]
    typer.echo(", ".join(f"{c.split}: {c.images} images, {len(c.faults)} faults" for c in checked))
    if faults:
        raise DataError("\n".join(faults))
