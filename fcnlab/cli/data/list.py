"""`fcnlab data list`: list the datasets of the registry."""

from __future__ import annotations

from fcnlab.cli.data.entry import dataset_entry
from fcnlab.cli.options import DataRoot, LabOption
from fcnlab.console import create_console, create_table
from fcnlab.errors import DataError

EXAMPLE = "Example: fcnlab data list --data-root ~/data"


def list_(lab: LabOption = None, data_root: DataRoot = None) -> None:
    """List the datasets: number of classes, images per split, and missing files."""
    from fcnlab.lab import Lab

    lab_ = Lab.find(root=lab, data_root=data_root)
    table = create_table("name", "classes", "images", "description")
    for name in lab_.registry.names("dataset"):
        spec = dataset_entry(lab_, name)
        try:
            dataset = lab_.open_dataset(spec)
            images = ", ".join(f"{split} {len(dataset.split(split))}" for split in spec.used_splits)
            table.add_row(name, str(len(dataset.classes)), images, spec.description)
        except DataError as error:
            table.add_row(name, "", "missing", f"{spec.description}\n{error}")
    create_console().print(table)
